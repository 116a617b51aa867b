"""Which parts of a filter or a sort no index serves: what to name when a list takes too long."""

from itertools import chain

from app.filters.ast import And, Compare, Node, Not, Operator, Or
from app.filters.fields import DataField, Fields


def what_is_slow(root: Node | None, fields: Fields, *, sort: str, count_by: str = "") -> list[str]:
    """The parts of what is asked for that no index serves."""
    slow = unserved(root, fields) if root else []
    is_narrow = root is not None and not slow
    # A sort of few rows needs none.
    if not is_narrow and not is_ordered_by_index(fields, sort):
        slow.append(f"sort={sort}")
    return [*slow, f"count_by={count_by}"] if count_by else slow


def is_ordered_by_index(fields: Fields, sort: str) -> bool:
    """Whether an index has the rows in that order."""
    return Operator.LT in fields.indexed.get(sort.removeprefix("-"), ())


def unserved(node: Node, fields: Fields) -> list[str]:
    """The comparisons for which every row of the list has to be read. Empty if an index finds the rows."""
    match node:
        case And(terms):
            found = [unserved(term, fields) for term in terms]
            # One that an index serves leaves few rows for the others.
            return [] if [] in found else list(chain.from_iterable(found))
        case Or(terms):
            return list(chain.from_iterable(unserved(term, fields) for term in terms))
        case Not(term):
            return [f"$not {text}" for text in _texts(term)]
        case Compare():
            return [] if _is_served(node, fields) else _texts(node)


def _is_served(node: Compare, fields: Fields) -> bool:
    values = node.value if isinstance(node.value, tuple) else (node.value,)
    field = fields.find(node.field)
    name = "data" if isinstance(field, DataField) else node.field
    if None in values or node.operator not in fields.indexed.get(name, ()):
        return False
    if isinstance(field, DataField):
        return field.can_be_found(values)
    # An index of parts knows none with fewer than three characters.
    return node.operator is not Operator.LIKE or len(str(node.value)) >= 3


def _texts(node: Node) -> list[str]:
    match node:
        case And(terms) | Or(terms):
            return [text for term in terms for text in _texts(term)]
        case Not(term):
            return _texts(term)
        case Compare(field, operator):
            return [f"{field} ({operator})"]
