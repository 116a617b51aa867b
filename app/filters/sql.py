"""The SQL of a filter, for WHERE."""

import operator
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, and_, false, not_, or_, true

from app.filters.ast import And, BadFilter, Compare, Node, Not, Operator, Or, Scalar
from app.filters.fields import Children, ColumnField, DataField, Fields, Ordering

_ORDERINGS: dict[Operator, Ordering] = {
    Operator.LT: operator.lt,
    Operator.LTE: operator.le,
    Operator.GT: operator.gt,
    Operator.GTE: operator.ge,
}


def condition(node: Node, fields: Fields) -> ColumnElement[bool]:
    """The filter as a condition for WHERE. Raises BadFilter for an unknown field or a value of the wrong type."""
    match node:
        case And(terms):
            return and_(*(condition(term, fields) for term in terms))
        case Or(terms):
            return or_(*(condition(term, fields) for term in terms))
        case Not(term):
            return _complement(condition(term, fields))
        case Compare():
            return _comparison(node, fields)


def _comparison(node: Compare, fields: Fields) -> ColumnElement[bool]:
    if below := fields.below(node.field):
        return _of_children(node, *below)
    field = fields.find(node.field)
    if field is None:
        raise BadFilter(f"Unknown filter field '{node.field}'. Valid fields: {fields.names()}.")
    match node.operator, node.value:
        case Operator.EXISTS, exists:
            return field.is_null() if exists is False else field.is_null().is_(false())
        case ((Operator.IN | Operator.NIN), tuple(values)):
            among = _is_among(field, values)
            return among if node.operator is Operator.IN else _complement(among)
        case Operator.LIKE, str(text):
            return field.as_text().icontains(text, autoescape=True)
        case Operator.EQ, (None | str() | int() | float()) as value:
            return _is_among(field, [value])
        case ordering, (str() | int() | float()) as value:
            return field.is_ordered(_ORDERINGS[ordering], value)
    raise AssertionError(f"compare() let {node} through")


def _of_children(node: Compare, children: Children, name: str) -> ColumnElement[bool]:
    """Whether a row has a child of which the comparison is true."""
    if name:
        return children.exist(_comparison(replace(node, field=name), children.fields))
    if node.operator is not Operator.EXISTS:
        raise BadFilter(
            f"Field '{node.field}' has no value: ask whether there are any by '$exists', or for their fields: "
            f"{', '.join(f'{node.field}.{one}' for one in children.fields.names().split(', '))}."
        )
    exist = children.exist()
    return exist if node.value else not_(exist)


def _is_among(field: ColumnField | DataField, values: Sequence[Scalar]) -> ColumnElement[bool]:
    present = [value for value in values if value is not None]
    either: list[ColumnElement[bool]] = [false()]
    if len(present) < len(values):
        either.append(field.is_null())
    if present:
        either.append(field.equals_any(present))
    return or_(*either)


def _complement(term: ColumnElement[bool]) -> ColumnElement[bool]:
    # Not `NOT term`: for a null column both would be null, and the row would match neither.
    return term.is_not(true())
