-- The functions of migration 0019. Later ones replace purge_changes and what notes new rows (0024), and
-- note_appointments, note_medical_records and note_users (0025). A blank line behind a semicolon ends a
-- statement. With the rights of the owner, so that nobody else, an instance of the release before included,
-- needs any to the table of changes.
--
-- Roles are bits: 1 admin, 2 doctor, 4 staff, 8 patient. Who may see an object before or after is told of it.

-- Several changes of one object in one transaction are one: those who may know of any of them are told. Not in
-- SQL, whose functions are planned anew in each statement.
CREATE FUNCTION note_change(
    noun text, id uuid, act text, roles integer, accounts uuid[] = '{}', charts uuid[] = '{}', doctors uuid[] = '{}')
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO public.changes AS known (xid, noun, object_id, act, roles, accounts, charts, doctors)
    VALUES (
        pg_current_xact_id()::text::bigint, $1, $2, $3, $4,
        array_remove($5, NULL), array_remove($6, NULL), array_remove($7, NULL))
    ON CONFLICT (xid, noun, object_id) DO UPDATE
    SET act = least(known.act, excluded.act), -- what was made is new, whatever else was done with it
        roles = known.roles | excluded.roles,
        accounts = known.accounts || excluded.accounts,
        charts = known.charts || excluded.charts,
        doctors = known.doctors || excluded.doctors;
END
$$;

-- Everybody at the clinic sees every chart. Whoever gains or loses it by a link gains or loses what is in it,
-- which is a change to nobody else.
CREATE FUNCTION note_patients() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chart CONSTANT uuid := coalesce(NEW.id, OLD.id);
    act CONSTANT text := CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'update' END;
    linked CONSTANT uuid[] := ARRAY[OLD.user_id, NEW.user_id];
BEGIN
    PERFORM public.note_change('patient', chart, act, 7, accounts => linked, charts => ARRAY[chart]);
    IF TG_OP = 'UPDATE' AND OLD.user_id IS DISTINCT FROM NEW.user_id THEN
        PERFORM public.note_change('appointment', id, 'update', 0, accounts => linked)
        FROM public.appointments WHERE patient_id = chart;
        PERFORM public.note_change('record', id, 'update', 0, accounts => linked)
        FROM public.medical_records WHERE patient_id = chart;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION note_appointments() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.note_change(
        'appointment', coalesce(NEW.id, OLD.id), CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'update' END, 5,
        charts => ARRAY[OLD.patient_id, NEW.patient_id], doctors => ARRAY[OLD.doctor_id, NEW.doctor_id]);
    RETURN NULL;
END
$$;

-- Staff see no record. One that goes was retracted.
CREATE FUNCTION note_medical_records() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.note_change(
        'record', coalesce(NEW.id, OLD.id), CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'update' END, 3,
        charts => ARRAY[OLD.patient_id, NEW.patient_id]);
    RETURN NULL;
END
$$;

CREATE FUNCTION note_record_versions() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.note_change('record', id, 'update', 3, charts => ARRAY[patient_id])
    FROM public.medical_records WHERE id = NEW.record_id;
    RETURN NULL;
END
$$;

-- Of an appointment more is said than it shows itself: of the visit, and why.
CREATE FUNCTION note_appointment_changes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.note_change(
        'appointment', id, 'update', 5, charts => ARRAY[patient_id], doctors => ARRAY[doctor_id])
    FROM public.appointments WHERE id = NEW.appointment_id;
    RETURN NULL;
END
$$;

-- Administrators see every account, staff those of patients, everybody the active doctors and their own. The
-- name of a doctor who has left, or is something else by now, is in appointments and records still.
CREATE FUNCTION note_users() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    account CONSTANT uuid := coalesce(NEW.id, OLD.id);
    roles CONSTANT text[] := ARRAY[OLD.role::text, NEW.role::text];
    states CONSTANT text[] := ARRAY[OLD.role || ' ' || OLD.status, NEW.role || ' ' || NEW.status];
    act CONSTANT text := CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'update' END;
BEGIN
    PERFORM public.note_change(
        'user', account, act,
        CASE WHEN 'doctor active' = ANY (states) THEN 15
             WHEN OLD.name <> NEW.name AND (
                 'doctor' = ANY (roles)
                 OR EXISTS (SELECT FROM public.appointments WHERE doctor_id = account)
                 OR EXISTS (SELECT FROM public.medical_records WHERE doctor_id = account)) THEN 15
             WHEN 'patient' = ANY (roles) THEN 5
             ELSE 1
        END,
        accounts => ARRAY[account]);
    RETURN NULL;
END
$$;

CREATE FUNCTION note_absences() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.note_change(
        'absence', coalesce(NEW.id, OLD.id), CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'update' END, 7);
    RETURN NULL;
END
$$;

-- Forget what is older than a day, unless somebody else is just doing that; but nothing behind a transaction
-- that is open still, or each cursor that waits for that one would be too old. A dump that was restored has
-- transactions that lie ahead here; nobody was told of them.
CREATE FUNCTION purge_changes() RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
    WITH turn AS MATERIALIZED (SELECT FROM public.change_horizon FOR UPDATE SKIP LOCKED),
    gone AS (
        DELETE FROM public.changes
        WHERE at < clock_timestamp() - interval '24 hours' AND EXISTS (SELECT FROM turn)
          AND (xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
               OR xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
        RETURNING xid)
    UPDATE public.change_horizon
    SET from_xid = greatest(from_xid, (
        SELECT max(xid) + 1 FROM gone WHERE xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint))
    WHERE EXISTS (SELECT FROM gone)
$$
