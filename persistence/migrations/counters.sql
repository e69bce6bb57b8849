-- What migration 0008 adds beside its tables and triggers. A blank line behind a semicolon ends a statement.

-- The lists that are counted: each has its first mark. Whoever takes that away has the list counted afresh.
CREATE VIEW counted_lists AS
    SELECT list FROM count_marks
    WHERE name = '' AND at = '-infinity' AND id = '00000000-0000-0000-0000-000000000000';

-- How many events of the trail there are, without anything that their writers would have to do: `n` tells of
-- those whose transaction is below `until_xid`, which are all over; the others, few, are counted.
--
-- Where a dump was restored, transactions count from a lower number again. The table is another one then, or
-- the number lies ahead: nothing is known, until the next folding begins anew. What no transaction of this
-- server can have written was restored, and up to the id `restored_id` all is in `n`.
CREATE VIEW audit_past AS
    SELECT n, until_xid, restored_id,
           (until_xid <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
            AND of_table = 'public.audit_events'::regclass::oid::bigint) IS TRUE AS is_known,
           CASE WHEN restored_id = 0 THEN 9223372036854775807
                ELSE greatest(pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                              coalesce(pg_current_xact_id_if_assigned()::text::bigint, 0) + 1)
           END AS up_to_xid
    FROM audit_count;

CREATE VIEW counted AS
    SELECT list, kind, sum(n)::bigint AS n, sum(amount)::bigint AS amount
    FROM (SELECT list, kind, n, amount FROM counts
          UNION ALL SELECT list, kind, n, amount FROM count_changes) AS entry
    GROUP BY list, kind
    UNION ALL
    SELECT 'audit_events', '',
           CASE WHEN is_known
                THEN n + (SELECT count(*) FROM audit_events AS event
                          WHERE event.xid >= until_xid AND event.xid < up_to_xid AND event.id > restored_id)
                ELSE (SELECT count(*) FROM audit_events)
           END, 0
    FROM audit_past;

-- What readers ask, in the snapshot of the statement that calls it. `kinds`: of which kinds, NULL for all. Where
-- the list is not counted the rows are, and the planner of that statement need not reckon with it.
CREATE FUNCTION counted_rows(counted text, kinds text[], OUT n bigint, OUT amount bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    amount := 0;
    IF counted = 'audit_events' THEN
        SELECT entry.n INTO n FROM public.counted AS entry WHERE list = 'audit_events';
    ELSIF EXISTS (SELECT FROM public.counted_lists WHERE list = counted) THEN
        SELECT coalesce(sum(entry.n), 0), coalesce(sum(entry.amount), 0) INTO n, amount
        FROM (SELECT known.n, known.amount FROM public.counts AS known
              WHERE list = counted AND (kind = ANY (kinds) OR kinds IS NULL)
              UNION ALL SELECT change.n, change.amount FROM public.count_changes AS change
              WHERE list = counted AND (kind = ANY (kinds) OR kinds IS NULL)) AS entry;
    ELSE
        SELECT coalesce(sum(entry.n), 0), coalesce(sum(entry.amount), 0) INTO n, amount
        FROM public.recounted AS entry WHERE list = counted AND (kind = ANY (kinds) OR kinds IS NULL);
    END IF;
END
$$;

-- The last mark in the list's order, or `backwards` in the opposite one, up to which there are no more than
-- `skipped` rows, and how many there are; where there is none, the end to begin from. A change counts from its
-- own place in the order on. One query for each direction, because with the direction as a value in ORDER BY
-- PostgreSQL cannot read the marks in the order of their primary key.
CREATE FUNCTION mark_before(counted text, skipped bigint, backwards boolean,
                            OUT name text, OUT at timestamptz, OUT id uuid, OUT n bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM public.counted_lists WHERE list = counted) THEN
        NULL;
    ELSIF backwards THEN
        SELECT step.name, step.at, step.id, step.n
        INTO mark_before.name, mark_before.at, mark_before.id, mark_before.n
        FROM (SELECT name, at, id, is_mark,
                     sum(n) OVER (ORDER BY name DESC, at DESC, id DESC, is_mark ROWS UNBOUNDED PRECEDING) AS n
              FROM (SELECT name, at, id, n, true AS is_mark FROM public.count_marks WHERE list = counted
                    UNION ALL SELECT name, at, id, n, false FROM public.count_changes WHERE list = counted)
                   AS entry) AS step
        WHERE step.is_mark AND step.n <= skipped
        ORDER BY step.name, step.at, step.id LIMIT 1;
    ELSE
        SELECT step.name, step.at, step.id, step.n
        INTO mark_before.name, mark_before.at, mark_before.id, mark_before.n
        FROM (SELECT name, at, id, is_mark,
                     sum(n) OVER (ORDER BY name, at, id, is_mark DESC ROWS UNBOUNDED PRECEDING) - n AS n
              FROM (SELECT name, at, id, n, true AS is_mark FROM public.count_marks WHERE list = counted
                    UNION ALL SELECT name, at, id, n, false FROM public.count_changes WHERE list = counted)
                   AS entry) AS step
        WHERE step.is_mark AND step.n <= skipped
        ORDER BY step.name DESC, step.at DESC, step.id DESC LIMIT 1;
    END IF;
    IF mark_before.n IS NULL THEN
        mark_before.name := CASE WHEN backwards THEN chr(1114111) ELSE '' END;
        mark_before.at := CASE WHEN backwards THEN 'infinity' ELSE '-infinity' END;
        mark_before.id := CASE WHEN backwards THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'
                               ELSE '00000000-0000-0000-0000-000000000000' END;
        mark_before.n := 0;
    END IF;
END
$$;

-- After a TRUNCATE. A reader counts for itself then, until the next folding has done so.
CREATE FUNCTION forget_count() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM public.counted_lists WHERE list = TG_TABLE_NAME;
    RETURN NULL;
END
$$;

-- The same of the trail, for whoever owns it.
CREATE FUNCTION forget_audit_count() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.audit_count SET until_xid = NULL;
    RETURN NULL;
END
$$;

-- Counts a list, in the one snapshot in which its changes are done with.
CREATE FUNCTION count_list(counted text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM public.counts WHERE list = counted;
    DELETE FROM public.count_marks WHERE list = counted;
    WITH told AS (DELETE FROM public.count_changes WHERE list = counted)
    INSERT INTO public.counts
        SELECT counted, kind, n, amount FROM public.recounted WHERE list = counted;
    INSERT INTO public.count_marks
        SELECT counted, '', '-infinity', '00000000-0000-0000-0000-000000000000', coalesce(sum(n), 0)
        FROM public.counts WHERE list = counted;
END
$$;

-- Moves `until_xid` on, where there are `fewest` events to pass.
CREATE FUNCTION count_events(fewest integer) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known public.audit_past;
    pending bigint;
BEGIN
    SELECT * INTO known FROM public.audit_past;
    IF known.is_known THEN
        SELECT count(*) INTO pending FROM (
            SELECT FROM public.audit_events AS event
            WHERE event.xid >= known.until_xid AND event.id > known.restored_id
              AND event.xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
            LIMIT fewest) AS event;
        IF pending < fewest THEN
            RETURN;
        END IF;
    END IF;
    PERFORM FROM public.audit_count FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO known FROM public.audit_past;
    IF known.is_known THEN
        UPDATE public.audit_count
        SET until_xid = now.xmin,
            n = known.n + (SELECT count(*) FROM public.audit_events AS event
                           WHERE event.xid >= known.until_xid AND event.xid < now.xmin
                             AND event.id > known.restored_id)
        FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin) AS now;
    ELSE
        UPDATE public.audit_count
        SET until_xid = now.xmin, restored_id = now.restored_id,
            of_table = 'public.audit_events'::regclass::oid::bigint,
            n = (SELECT count(*) FROM public.audit_events AS event
                 WHERE event.xid < now.xmin OR event.id <= now.restored_id)
        FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
                     coalesce((SELECT max(event.id) FROM public.audit_events AS event
                               WHERE event.xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint), 0)
                     AS restored_id) AS now;
    END IF;
END
$$;

-- Splits a mark behind which there are more than twice `size` rows up to the next one, so that it is never far
-- from a mark to a row.
CREATE FUNCTION split_count_mark(size integer) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mark public.count_marks;
    added bigint;
    by_name boolean;
BEGIN
    SELECT * INTO mark FROM public.count_marks WHERE n > 2 * size ORDER BY n DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    by_name := mark.list IN ('patients', 'users');
    EXECUTE format($split$
        WITH cut AS (
            SELECT %s, id FROM public.%I WHERE (%I, id) >= (%s, $4) ORDER BY 1, 2, 3 OFFSET $6 LIMIT 1
        ), part AS (
            SELECT cut.*, $6 - (
                SELECT coalesce(sum(change.n), 0) FROM public.count_changes AS change
                WHERE change.list = $1 AND (change.name, change.at, change.id) >= ($2, $3, $4)
                  AND (change.name, change.at, change.id) < (cut.name, cut.at, cut.id)) AS n
            FROM cut
            WHERE NOT EXISTS (
                SELECT FROM public.count_marks AS next
                WHERE next.list = $1 AND (next.name, next.at, next.id) > ($2, $3, $4)
                  AND (next.name, next.at, next.id) <= (cut.name, cut.at, cut.id))
        ), kept AS (
            UPDATE public.count_marks AS whole SET n = part.n FROM part
            WHERE (whole.list, whole.name, whole.at, whole.id) = ($1, $2, $3, $4)
        )
        INSERT INTO public.count_marks SELECT $1, name, at, id, $5 - n FROM part
        $split$,
        CASE WHEN by_name THEN 'sort_name AS name, timestamptz ''-infinity'' AS at'
             ELSE 'text '''' COLLATE "C" AS name, date AS at' END,
        mark.list,
        CASE WHEN by_name THEN 'sort_name' ELSE 'date' END,
        CASE WHEN by_name THEN '$2' ELSE '$3' END)
        USING mark.list, mark.name, mark.at, mark.id, mark.n, size;
    GET DIAGNOSTICS added = ROW_COUNT;
    RETURN added = 1;
END
$$;

-- Moves changes into `counts` and `count_marks`. Whoever reads meanwhile finds each of them in the one place or
-- the other, because each statement here is of one snapshot. One session folds at a time, and nobody waits for
-- it, nor it for them: what a TRUNCATE is about to forget it leaves alone. Returns whether there is more to do
-- at once. With the rights of the owner, because whoever could write there could have any number shown.
CREATE FUNCTION fold_counts(fewest integer) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    most CONSTANT integer := 20000;  -- changes at once
    splits integer := 0;
    changes bigint;
    uncounted text;
    free text[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('fold_counts')) THEN
        RETURN false;
    END IF;
    PERFORM public.count_events(greatest(fewest, 1));
    FOR uncounted IN
        SELECT list FROM unnest('{patients,appointments,medical_records,users}'::text[]) AS list
        WHERE list NOT IN (SELECT list FROM public.counted_lists)
    LOOP
        PERFORM public.count_list(uncounted);
    END LOOP;
    SELECT count(*) INTO changes FROM (SELECT FROM public.count_changes LIMIT most) AS change;
    IF changes >= greatest(fewest, 1) THEN
        free := ARRAY(SELECT list FROM public.counted_lists FOR UPDATE SKIP LOCKED);
        WITH change AS (
            DELETE FROM public.count_changes WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM public.count_changes WHERE list = ANY (free) LIMIT most))
            RETURNING *
        ), by_kind AS (
            INSERT INTO public.counts AS known
            SELECT list, kind, sum(n), sum(amount) FROM change GROUP BY list, kind
            ON CONFLICT (list, kind) DO UPDATE
            SET n = known.n + excluded.n, amount = known.amount + excluded.amount
        ), by_mark AS (
            SELECT mark.list, mark.name, mark.at, mark.id, sum(change.n) AS n
            FROM change CROSS JOIN LATERAL (
                SELECT * FROM public.count_marks AS mark
                WHERE mark.list = change.list
                  AND (mark.name, mark.at, mark.id) <= (change.name, change.at, change.id)
                ORDER BY mark.name DESC, mark.at DESC, mark.id DESC LIMIT 1) AS mark
            GROUP BY mark.list, mark.name, mark.at, mark.id
        )
        UPDATE public.count_marks AS mark SET n = mark.n + by_mark.n FROM by_mark
        WHERE (mark.list, mark.name, mark.at, mark.id)
            = (by_mark.list, by_mark.name, by_mark.at, by_mark.id);
    END IF;
    WHILE splits < 200 AND public.split_count_mark(4000) LOOP
        splits := splits + 1;
    END LOOP;
    RETURN changes = most OR splits = 200;
END
$$;
