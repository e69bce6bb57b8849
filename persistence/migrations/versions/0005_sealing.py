"""sealing

Revision: 0005
Follows: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# What the next seal covers, in the caller's snapshot; nothing of it is the caller's to say but `most`.
#
# Transactions below `until` are all over, so that no row can still appear among those that a seal covers. A
# seal takes a transaction whole, so that the next one can begin after it; of one with several times `most`
# rows, which nobody could seal at once, it ends at the row `within`, and the next one begins behind that.
#
# A database restored from a dump counts its transactions from a lower number again, and what was restored
# says nothing in the new count. But ids go on: every restored one is below every new one. So the first seal
# there covers what the dump brought unsealed, even if that is nothing, and those after it begin anew, above
# `restored`. That is the newest row which was sealed before, or which no transaction of this server can have
# written yet.
NEXT = """
CREATE FUNCTION next_audit_seal(most integer, OUT number bigint, OUT previous bytea, OUT ids bigint[],
                                OUT until bigint, OUT within bigint, OUT after bigint,
                                OUT begins_anew boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    since bigint;
    restored bigint;
    xids bigint[];
    whole integer;
BEGIN
    IF most IS NULL OR most < 1 THEN
        RAISE EXCEPTION 'a seal holds one event at least';
    END IF;
    SELECT seal.number, seal.mac, seal.until_xid, seal.within_id, seal.after_id
        INTO number, previous, since, within, after
        FROM public.audit_seals AS seal ORDER BY seal.number DESC LIMIT 1;
    number := coalesce(number, 0) + 1;
    previous := coalesce(previous, '');
    since := coalesce(since, 0);
    within := coalesce(within, 0);
    after := coalesce(after, 0);
    until := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    begins_anew := since > until;
    IF NOT begins_anew THEN
        SELECT array_agg(found.id ORDER BY found.xid, found.id), array_agg(found.xid ORDER BY found.xid)
            INTO ids, xids
            FROM (SELECT event.id, event.xid FROM public.audit_events AS event
                  WHERE (event.xid, event.id) > (since, within) AND event.xid < until AND event.id > after
                  ORDER BY event.xid, event.id LIMIT 4 * most) AS found;
        within := 0;
        IF cardinality(ids) >= most THEN
            until := xids[most] + 1;
            SELECT count(*) INTO whole FROM unnest(xids) AS xid WHERE xid < until;
            ids := ids[1 : whole];
            IF whole = 4 * most THEN
                until := xids[most];
                within := ids[whole];
            END IF;
        END IF;
    ELSE
        within := 0;
        SELECT max(event.id) INTO restored FROM public.audit_events AS event
            WHERE event.xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
               OR event.id <= (SELECT max(sealed.id)
                               FROM public.audit_seals, unnest(event_ids) AS sealed(id));
        restored := coalesce(restored, 0);
        SELECT array_agg(found.id ORDER BY found.id) INTO ids
            FROM (SELECT event.id FROM public.audit_events AS event
                  LEFT JOIN (SELECT unnest(event_ids) AS id FROM public.audit_seals) AS sealed USING (id)
                  WHERE sealed.id IS NULL AND event.id <= restored
                  ORDER BY event.id LIMIT most) AS found;
        IF cardinality(ids) = most THEN
            until := since;
        ELSE
            until := 0;
            after := restored;
        END IF;
    END IF;
    ids := coalesce(ids, '{}');
END
$$
"""
# Appends what `next_audit_seal` says, with the caller's digests and MAC; false where the caller has computed
# them of something else, or another was first. With the rights of its owner, because a role that may insert a
# seal could let it end where no transaction will ever come, and so stop all sealing. What a caller without
# the key can do here is to append a seal that does not verify: the next one goes on behind it.
APPEND = """
CREATE FUNCTION append_audit_seal(most integer, expected bigint, digests bytea[], key_id text, mac bytea)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    block record;
BEGIN
    SELECT * INTO block FROM public.next_audit_seal(most);
    IF block.number IS DISTINCT FROM expected
        OR cardinality(digests) IS DISTINCT FROM cardinality(block.ids)
        OR cardinality(digests) = 0 AND NOT block.begins_anew
        OR EXISTS (SELECT FROM unnest(digests) AS digest WHERE octet_length(digest) IS DISTINCT FROM 32)
        OR octet_length(mac) IS DISTINCT FROM 32
        OR (key_id ~ '^[0-9a-f]{16}$') IS NOT TRUE
    THEN
        RETURN false;
    END IF;
    INSERT INTO public.audit_seals (number, event_ids, until_xid, within_id, after_id, digests, key_id, mac)
        VALUES (block.number, block.ids, block.until, block.within, block.after, digests, key_id, mac);
    RETURN true;
EXCEPTION WHEN unique_violation THEN
    RETURN false;
END
$$
"""


# What an append-only role could add to keep a sealer from reading it: an instant that Python does not know,
# or more than memory holds.
SEALABLE = (
    "at >= '0001-01-02 00:00:00+00'::timestamptz AND at < '9999-12-31 00:00:00+00'::timestamptz "
    "AND cardinality(target_ids) <= 200 AND cardinality(patient_ids) <= 200 "
    "AND octet_length(concat(email, role, action, outcome, address)) <= 4000"
)


def upgrade() -> None:
    op.add_column(
        "audit_seals", sa.Column("within_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.create_check_constraint(op.f("ck_audit_events_sealable"), "audit_events", SEALABLE)
    op.execute(NEXT)
    op.execute(APPEND)
    op.execute("REVOKE EXECUTE ON FUNCTION next_audit_seal FROM PUBLIC")
    op.execute("REVOKE EXECUTE ON FUNCTION append_audit_seal FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP FUNCTION append_audit_seal")
    op.execute("DROP FUNCTION next_audit_seal")
    op.drop_constraint(op.f("ck_audit_events_sealable"), "audit_events", type_="check")
    op.drop_column("audit_seals", "within_id")
