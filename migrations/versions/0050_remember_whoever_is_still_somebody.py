"""Remember whoever is still somebody, however a name is written"""

from alembic import op

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None

# As `pseudonymised` finds them: emails among the names are in lower case, as far as ASCII goes.
IS_ONE_OF = """
CREATE FUNCTION is_one_of(value text, names text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT value = ANY (names) OR (value LIKE '%@%' AND lower(value COLLATE "C") = ANY (names))
$$
"""

REASON = """
CREATE OR REPLACE FUNCTION reason_to_remember(names text[]) RETURNS text LANGUAGE sql STABLE
SET search_path FROM CURRENT AS $$
    SELECT coalesce(
        (SELECT format('the role %s in the workspace ''%s''', role, workspaces.name)
         FROM role_bindings JOIN workspaces ON workspaces.id = workspace_id
         WHERE is_one_of(principal, names) AND (revoked_at IS NULL OR revoked_by_deletion IS NOT NULL) LIMIT 1),
        (SELECT 'the access key ' || jti FROM access_keys
         WHERE is_one_of(principal, names)
           AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) LIMIT 1),
        (SELECT 'the unfinished deletion ' || id FROM deletions
         WHERE is_one_of(requested_by, names) AND state IN ('DELETING', 'FAILED') LIMIT 1),
        (SELECT 'the subscription ' || id || ', which sends it e-mail' FROM subscriptions
         WHERE is_one_of(substr(url, 8), names) AND url LIKE 'mailto:%' LIMIT 1),
        (SELECT 'a name that is empty' WHERE '' = ANY (names)))
$$
"""

AS_BEFORE = """
CREATE OR REPLACE FUNCTION reason_to_remember(names text[]) RETURNS text LANGUAGE sql STABLE
SET search_path FROM CURRENT AS $$
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


def upgrade() -> None:
    op.execute(IS_ONE_OF)
    op.execute(REASON)


def downgrade() -> None:
    op.execute(AS_BEFORE)
    op.execute("DROP FUNCTION is_one_of(text, text[])")
