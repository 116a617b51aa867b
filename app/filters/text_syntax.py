"""The text syntax of filters: `name:"a" AND (created_at>="2026-01-01" OR -project~"x")`."""

import re

from app.filters.ast import BadFilter, Node, Not, Operator, Or, Scalar, all_of, compare, deeper

_SPACE = re.compile(r"\s*")
_AND, _OR, _NOT, _IN = (re.compile(rf"{word}\b", re.IGNORECASE) for word in ("AND", "OR", "NOT", "IN"))
_TERM = re.compile(r"[-(]|(?!OR\b)[a-z_]", re.IGNORECASE)
_FIELD = re.compile(r"(?!(?:AND|OR|NOT|IN)\b)[a-z_]\w*(?:\.\w+)*", re.IGNORECASE)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\b")
_CONSTANT = re.compile(r"(?:null|true|false)\b", re.IGNORECASE)
_SYMBOL = re.compile(r"[<>]=?|[:~]")

_OPERATORS = {
    ":": Operator.EQ,
    "~": Operator.LIKE,
    "<": Operator.LT,
    "<=": Operator.LTE,
    ">": Operator.GT,
    ">=": Operator.GTE,
}
_CONSTANTS: dict[str, bool | None] = {"null": None, "true": True, "false": False}


def parse_text(text: str) -> Node:
    """Parse a filter in the text syntax. Raises BadFilter with the position of the error.

    alternative = conjunction { OR conjunction }
    conjunction = term { [AND] term }
    term        = "-" term | "(" alternative ")" | comparison
    comparison  = field ( symbol value | [NOT] IN "[" [value {"," value}] "]" )
    field       = identifier { "." word } { "[" string "]" }
    value       = string | number | null | true | false
    """
    return _Parser(text).parse()


class _Parser:
    """A cursor over the text, and one method per rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def parse(self) -> Node:
        self._take(_SPACE)
        if self._position == len(self._text):
            raise BadFilter("Filter query cannot be empty")
        node = self._alternative(depth=0)
        if self._position < len(self._text):
            raise self._expected("AND, OR or the end")
        return node

    def _alternative(self, depth: int) -> Node:
        terms = [self._conjunction(depth)]
        while self._take(_OR):
            terms.append(self._conjunction(depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _conjunction(self, depth: int) -> Node:
        terms = [self._term(depth)]
        while self._take(_AND) or _TERM.match(self._text, self._position):
            terms.append(self._term(depth))
        return all_of(terms)

    def _term(self, depth: int) -> Node:
        if self._take_sign("-"):
            return Not(self._term(deeper(depth)))
        if self._take_sign("("):
            node = self._alternative(deeper(depth))
            self._require_sign(")")
            return node
        return self._comparison()

    def _comparison(self) -> Node:
        field = self._field()
        if symbol := self._take(_SYMBOL):
            return compare(field, _OPERATORS[symbol[0]], self._value())
        operator = Operator.NIN if self._take(_NOT) else Operator.IN
        if not self._take(_IN):
            raise self._expected("one of : ~ < <= > >= IN, NOT IN")
        return compare(field, operator, self._list())

    def _field(self) -> str:
        name = self._take(_FIELD)
        if name is None:
            raise self._expected("a field")
        keys = [name[0]]
        while self._take_sign("["):
            key = self._take(_STRING)
            if key is None:
                raise self._expected("a quoted key")
            keys.append(_unescaped(key[1]))
            self._require_sign("]")
        return ".".join(keys)

    def _list(self) -> list[Scalar]:
        self._require_sign("[")
        if self._take_sign("]"):
            return []
        items = [self._value()]
        while self._take_sign(","):
            items.append(self._value())
        self._require_sign("]")
        return items

    def _value(self) -> Scalar:
        if string := self._take(_STRING):
            return _unescaped(string[1])
        if constant := self._take(_CONSTANT):
            return _CONSTANTS[constant[0].lower()]
        if number := self._take(_NUMBER):
            try:
                return int(number[0])
            except ValueError:
                return float(number[0])
        raise self._expected('a value: "text" in quotes, a number, true, false or null')

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Consume the pattern and the space after it, if it comes next."""
        match = pattern.match(self._text, self._position)
        if match:
            space = _SPACE.match(self._text, match.end())
            self._position = space.end() if space else match.end()
        return match

    def _take_sign(self, sign: str) -> bool:
        return self._take(re.compile(re.escape(sign))) is not None

    def _require_sign(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise self._expected(f"'{sign}'")

    def _expected(self, what: str) -> BadFilter:
        return BadFilter(f"Invalid filter query: expected {what} at character {self._position + 1}.")


def _unescaped(string: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", string)
