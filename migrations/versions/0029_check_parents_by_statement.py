"""Check the parents of entities by statement: the foreign key asked twice for each row that was deleted"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# docs/decisions/0011-parents-of-entities-are-checked-by-statement.md says why this is as safe as the foreign key.
# Of the owner, and by indexes whatever a plan was made for, as PostgreSQL's own checks of foreign keys.
OPTIONS = "LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan TO off"
HAVE_PARENTS = """
CREATE FUNCTION entities_have_parents() RETURNS trigger {options} AS $$
BEGIN
    PERFORM FROM entities WHERE workspace_id = NEW.workspace_id AND id = NEW.parent_id FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE foreign_key_violation USING TABLE = 'entities', CONSTRAINT = 'fk_entities_parent',
            MESSAGE = 'the parent of an entity is not in its workspace';
    END IF;
    RETURN NULL;
END $$
"""
LEAVE_NO_CHILDREN = """
CREATE FUNCTION entities_leave_no_children() RETURNS trigger {options} AS $$
DECLARE
    has_left boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE object_not_in_prerequisite_state USING TABLE = 'entities',
            MESSAGE = 'entities are deleted in READ COMMITTED alone: an older snapshot does not show new children';
    END IF;
    IF TG_OP = 'DELETE' THEN
        SELECT EXISTS (
            SELECT FROM removed WHERE EXISTS (
                SELECT FROM entities WHERE workspace_id = removed.workspace_id AND parent_id = removed.id OFFSET 0)
        ) INTO has_left;
    ELSE
        SELECT EXISTS (
            SELECT FROM entities WHERE workspace_id = OLD.workspace_id AND parent_id = OLD.id) INTO has_left;
    END IF;
    IF has_left THEN
        RAISE foreign_key_violation USING TABLE = 'entities', CONSTRAINT = 'fk_entities_parent',
            MESSAGE = 'an entity that stays is the child of one that goes';
    END IF;
    RETURN NULL;
END $$
"""
FUNCTIONS = ("entities_have_parents", "entities_leave_no_children")
TRIGGERS = {
    "check_parents_of_added_entities": "AFTER INSERT ON entities FOR EACH ROW "
    "WHEN (NEW.parent_id IS NOT NULL) EXECUTE FUNCTION entities_have_parents()",
    "check_parents_of_moved_entities": "AFTER UPDATE ON entities FOR EACH ROW "
    "WHEN (NEW.parent_id IS NOT NULL AND (NEW.parent_id, NEW.workspace_id) IS DISTINCT FROM "
    "(OLD.parent_id, OLD.workspace_id)) EXECUTE FUNCTION entities_have_parents()",
    "check_children_of_removed_entities": "AFTER DELETE ON entities REFERENCING OLD TABLE AS removed "
    "FOR EACH STATEMENT EXECUTE FUNCTION entities_leave_no_children()",
    "check_children_of_moved_entities": "AFTER UPDATE ON entities FOR EACH ROW "
    "WHEN ((NEW.id, NEW.workspace_id) IS DISTINCT FROM (OLD.id, OLD.workspace_id)) "
    "EXECUTE FUNCTION entities_leave_no_children()",
}


def upgrade() -> None:
    op.execute(HAVE_PARENTS.format(options=OPTIONS))
    op.execute(LEAVE_NO_CHILDREN.format(options=OPTIONS))
    for name, what in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {what}")
    # Last, in the same transaction: no row is ever checked by neither.
    op.drop_constraint("fk_entities_parent", "entities")


def downgrade() -> None:
    # No row is read now: the triggers have let none in that violates it.
    op.create_foreign_key(
        "fk_entities_parent",
        "entities",
        "entities",
        ["workspace_id", "parent_id"],
        ["workspace_id", "id"],
        postgresql_not_valid=True,
    )
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON entities")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}()")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE entities VALIDATE CONSTRAINT fk_entities_parent")
