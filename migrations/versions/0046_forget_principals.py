"""Forget principals: one pseudonym in the place of their names, in the audit log by a function of its owner"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

# Emails among the names are in lower case, as far as ASCII goes; other names are what they are.
VALUE = """
CREATE FUNCTION pseudonymised(value text, names text[], pseudonym text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN value = ANY (names) OR (value LIKE '%@%' AND lower(value COLLATE "C") = ANY (names))
                THEN pseudonym ELSE value END
$$
"""

# As text, in which a value is never followed by a colon, and a quote within one always has a backslash before it.
DOCUMENT = r"""
CREATE FUNCTION pseudonymised(document jsonb, names text[], pseudonym text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    content text := document::text;
    name text;
BEGIN
    FOREACH name IN ARRAY names LOOP
        content := regexp_replace(
            content,
            '(?<!\\)' || regexp_replace(to_json(name)::text, '([^\w"])', '\\\1', 'g') || '(?!:)',
            to_json(pseudonym)::text,
            CASE WHEN name LIKE '%@%' THEN 'gi' ELSE 'g' END);
    END LOOP;
    RETURN content::jsonb;
END $$
"""

REASON = """
CREATE FUNCTION reason_to_remember(names text[]) RETURNS text LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT coalesce(
        (SELECT format('the role %s in the workspace ''%s''', role, workspaces.name)
         FROM role_bindings JOIN workspaces ON workspaces.id = workspace_id
         WHERE (principal = ANY (names) OR (principal LIKE '%@%' AND lower(principal COLLATE "C") = ANY (names)))
           AND (revoked_at IS NULL OR revoked_by_deletion IS NOT NULL) LIMIT 1),
        (SELECT 'the access key ' || jti FROM access_keys
         WHERE principal = ANY (names) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) LIMIT 1),
        (SELECT 'the unfinished deletion ' || id FROM deletions
         WHERE requested_by = ANY (names) AND state IN ('DELETING', 'FAILED') LIMIT 1))
$$
"""

FORGET = """
CREATE FUNCTION forget_in_audit_log(
    forgetting text, names text[], actor_of_line text, after uuid, at_most integer, OUT number bigint, OUT last uuid
) LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    reason text := reason_to_remember(names);
BEGIN
    IF reason IS NOT NULL OR forgetting NOT LIKE 'forgotten:%' THEN
        RAISE EXCEPTION 'these names cannot be forgotten: there is %', coalesce(reason, 'no pseudonym');
    END IF;
    SELECT id INTO last FROM (
        SELECT id FROM audit_records WHERE id > after ORDER BY id LIMIT at_most) AS page ORDER BY id DESC LIMIT 1;
    IF last IS NULL THEN
        number := 0;
        RETURN;
    END IF;
    PERFORM set_config('workspaces.rewriting_audit_log', 'UPDATE', true);
    UPDATE audit_records
    SET address = CASE WHEN pseudonymised(actor, names, forgetting) = forgetting THEN '' ELSE address END,
        actor = pseudonymised(actor, names, forgetting),
        email = pseudonymised(email, names, forgetting),
        subject = pseudonymised(subject, names, forgetting),
        detail = pseudonymised(detail, names, forgetting)
    WHERE id > after AND id <= last
      AND (actor, email, subject, detail) IS DISTINCT FROM (
          pseudonymised(actor, names, forgetting), pseudonymised(email, names, forgetting),
          pseudonymised(subject, names, forgetting), pseudonymised(detail, names, forgetting));
    GET DIAGNOSTICS number = ROW_COUNT;
    PERFORM set_config('workspaces.rewriting_audit_log', '', true);
    IF number > 0 OR after = '00000000-0000-0000-0000-000000000000' THEN
        PERFORM note_in_audit_log(
            'principal.forgotten', actor_of_line, forgetting, jsonb_build_object('number', number));
    END IF;
END $$
"""

FUNCTIONS = (
    "forget_in_audit_log(text, text[], text, uuid, integer)",
    "reason_to_remember(text[])",
    "pseudonymised(jsonb, text[], text)",
    "pseudonymised(text, text[], text)",
)


def upgrade() -> None:
    op.create_table(
        "principal_erasures",
        sa.Column("pseudonym", sa.Text(), nullable=False),
        sa.Column("names", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("pseudonym", name="pk_principal_erasures"),
    )
    for function in (VALUE, DOCUMENT, REASON, FORGET):
        op.execute(function)


def downgrade() -> None:
    for signature in FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature}")
    op.drop_table("principal_erasures")
