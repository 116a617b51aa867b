"""Let records end: by functions of the owner, which take their age from what the owner has written down"""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None

# Whoever owns the table could set this as well, but nobody does so by accident; all others have no right to the rows.
REFUSE = """
CREATE OR REPLACE FUNCTION refuse_to_rewrite_the_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('workspaces.rewriting_audit_log', true) = TG_OP THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit_records is append-only: % is refused', TG_OP;
END $$
"""
REFUSE_ALL = """
CREATE OR REPLACE FUNCTION refuse_to_rewrite_the_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_records is append-only: % is refused', TG_OP;
END $$
"""

NOTE = """
CREATE FUNCTION note_in_audit_log(event text, actor text, subject text, detail jsonb) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO audit_records (id, at, event, actor, email, service, address, request_id, subject, detail)
    SELECT gen_random_uuid(), now(), event, actor, '', '', '', '', subject, detail
$$
"""

# Whole days: otherwise each sweep would find the one line that has just grown old enough, and add one that says so.
OLDEST = """
CREATE FUNCTION oldest_kept(days integer) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT date_trunc('day', now(), 'UTC') - make_interval(hours => 24 * days)
$$
"""

PRUNE_AUDIT_LOG = """
CREATE FUNCTION prune_audit_log(at_most integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    oldest timestamptz;
    removed bigint;
BEGIN
    SELECT oldest_kept(days) INTO oldest FROM retentions
    WHERE records = 'audit_records' AND days > 0 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM set_config('workspaces.rewriting_audit_log', 'DELETE', true);
    DELETE FROM audit_records
    WHERE id IN (SELECT id FROM audit_records WHERE at < oldest ORDER BY at LIMIT at_most);
    GET DIAGNOSTICS removed = ROW_COUNT;
    PERFORM set_config('workspaces.rewriting_audit_log', '', true);
    IF removed > 0 THEN
        PERFORM note_in_audit_log('records.pruned', 'service:maintenance', 'audit_records',
            jsonb_build_object('number', removed, 'before', oldest));
    END IF;
    RETURN removed;
END $$
"""

# Deletions that retain something are passed once: they never cease to, so no call has to look at them again.
PRUNE_DELETIONS = """
CREATE FUNCTION prune_deletions(at_most integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    kept retentions;
    oldest timestamptz;
    found_ids uuid[];
    old uuid[];
    removed bigint;
BEGIN
    SELECT * INTO kept FROM retentions WHERE records = 'deletions' AND days > 0 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    oldest := oldest_kept(kept.days);
    found_ids := ARRAY(
        SELECT id FROM deletions
        WHERE state IN ('DONE', 'RESTORED') AND finished_at < oldest
          AND (finished_at, id) > (kept.passed_at, kept.passed_id)
        ORDER BY finished_at, id LIMIT at_most);
    IF found_ids = '{}' THEN
        RETURN 0;
    END IF;
    SELECT finished_at, id INTO kept.passed_at, kept.passed_id
    FROM deletions WHERE id = found_ids[array_upper(found_ids, 1)];
    old := ARRAY(
        SELECT one FROM unnest(found_ids) AS one
        WHERE NOT EXISTS (SELECT FROM deletion_failures WHERE deletion_id = one AND skipped_by IS NOT NULL));
    DELETE FROM deletion_events
    WHERE id IN (SELECT id FROM deletion_events WHERE deletion_id = ANY (old) ORDER BY deletion_id, id LIMIT at_most);
    DELETE FROM deletion_failures WHERE (deletion_id, kind, resource_id) IN (
        SELECT deletion_id, kind, resource_id FROM deletion_failures WHERE deletion_id = ANY (old)
        ORDER BY 1, 2, 3 LIMIT at_most);
    old := ARRAY(
        SELECT one FROM unnest(old) AS one
        WHERE NOT EXISTS (SELECT FROM deletion_events WHERE deletion_id = one)
          AND NOT EXISTS (SELECT FROM deletion_failures WHERE deletion_id = one));
    DELETE FROM deletion_failure_counts WHERE deletion_id = ANY (old);
    DELETE FROM deletions WHERE id = ANY (old);
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF NOT EXISTS (
        SELECT FROM deletions WHERE id = ANY (found_ids)
          AND NOT EXISTS (SELECT FROM deletion_failures WHERE deletion_id = id AND skipped_by IS NOT NULL)) THEN
        UPDATE retentions SET passed_at = kept.passed_at, passed_id = kept.passed_id WHERE records = 'deletions';
    END IF;
    IF removed > 0 THEN
        PERFORM note_in_audit_log('records.pruned', 'service:maintenance', 'deletions',
            jsonb_build_object('number', removed, 'before', oldest));
    END IF;
    RETURN removed;
END $$
"""

FUNCTIONS = (
    "prune_deletions(integer)",
    "prune_audit_log(integer)",
    "oldest_kept(integer)",
    "note_in_audit_log(text, text, text, jsonb)",
)


def upgrade() -> None:
    op.create_table(
        "retentions",
        sa.Column("records", sa.Text(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("passed_at", sa.DateTime(timezone=True), server_default="epoch", nullable=False),
        sa.Column(
            "passed_id", sa.Uuid(), server_default="00000000-0000-0000-0000-000000000000", nullable=False
        ),
        sa.PrimaryKeyConstraint("records", name="pk_retentions"),
    )
    for function in (REFUSE, NOTE, OLDEST, PRUNE_AUDIT_LOG, PRUNE_DELETIONS):
        op.execute(function)


def downgrade() -> None:
    for signature in FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature}")
    op.execute(REFUSE_ALL)
    op.drop_table("retentions")
