-- The functions of migration 0017. A blank line behind a semicolon ends a statement. With the rights of the
-- owner, because the service's role may not change a record. Whoever calls them has locked both charts, and
-- has told the patient's other appointments from these.

-- Moves all that is `merged`'s to `survivor`, the row of its chart to `merged_patients`, and its account, if it
-- is linked to one, to the other chart.
CREATE FUNCTION merge_charts(survivor uuid, merged uuid) RETURNS timestamptz LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chart public.patients;
    moment CONSTANT timestamptz := clock_timestamp();
BEGIN
    SELECT * INTO STRICT chart FROM public.patients WHERE id = merged;
    PERFORM FROM public.patients WHERE id = survivor AND (user_id IS NULL OR chart.user_id IS NULL);
    IF NOT FOUND OR survivor = merged THEN
        RAISE EXCEPTION 'these charts cannot be merged' USING ERRCODE = 'check_violation';
    END IF;
    UPDATE public.appointments
    SET patient_id = survivor, stored_patient_id = coalesce(stored_patient_id, merged)
    WHERE patient_id = merged;
    UPDATE public.medical_records
    SET patient_id = survivor, stored_patient_id = coalesce(stored_patient_id, merged)
    WHERE patient_id = merged;
    UPDATE public.record_retractions
    SET patient_id = survivor, stored_patient_id = coalesce(stored_patient_id, merged)
    WHERE patient_id = merged;
    INSERT INTO public.merged_patients (
        id, survivor_id, merged_at, moved_account, ever_linked, name, email, phone, date_of_birth, gender,
        address, blood_type, allergies, medical_history, sort_name, search_text, latin_trigrams, merge_count,
        created_at)
    VALUES (
        merged, survivor, moment, chart.user_id, chart.ever_linked, chart.name, chart.email, chart.phone,
        chart.date_of_birth, chart.gender, chart.address, chart.blood_type, chart.allergies,
        chart.medical_history, chart.sort_name, chart.search_text, chart.latin_trigrams, chart.merge_count,
        chart.created_at);
    DELETE FROM public.patients WHERE id = merged;
    UPDATE public.patients
    SET user_id = coalesce(user_id, chart.user_id), ever_linked = ever_linked OR chart.ever_linked,
        merge_count = merge_count + 1
    WHERE id = survivor;
    RETURN moment;
END
$$;

-- The reverse: `left_ids` are the appointments and records that were written since, which stay with the
-- survivor; `account` is the one that has gone back.
CREATE FUNCTION unmerge_charts(survivor uuid, merged uuid, OUT left_ids uuid[], OUT account uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chart public.merged_patients;
    of_chart uuid[];
BEGIN
    DELETE FROM public.merged_patients AS gone WHERE gone.id = merged AND gone.survivor_id = survivor
    RETURNING * INTO STRICT chart;
    WITH RECURSIVE under AS (
        SELECT merged AS id
        UNION ALL SELECT other.id FROM under JOIN public.merged_patients AS other ON other.survivor_id = under.id
    ) SELECT array_agg(id) INTO of_chart FROM under;
    UPDATE public.patients SET user_id = NULL WHERE id = survivor AND user_id = chart.moved_account
    RETURNING chart.moved_account INTO account;
    UPDATE public.patients SET merge_count = merge_count + 1 WHERE id = survivor;
    INSERT INTO public.patients (
        id, user_id, ever_linked, name, email, phone, date_of_birth, gender, address, blood_type, allergies,
        medical_history, sort_name, search_text, latin_trigrams, merge_count, created_at)
    VALUES (
        merged, account, chart.ever_linked, chart.name, chart.email, chart.phone, chart.date_of_birth,
        chart.gender, chart.address, chart.blood_type, chart.allergies, chart.medical_history,
        chart.sort_name, chart.search_text, chart.latin_trigrams, chart.merge_count + 1, chart.created_at);
    UPDATE public.appointments
    SET patient_id = merged, stored_patient_id = nullif(stored_patient_id, merged)
    WHERE patient_id = survivor AND stored_patient_id = ANY (of_chart);
    UPDATE public.medical_records
    SET patient_id = merged, stored_patient_id = nullif(stored_patient_id, merged)
    WHERE patient_id = survivor AND stored_patient_id = ANY (of_chart);
    UPDATE public.record_retractions
    SET patient_id = merged, stored_patient_id = nullif(stored_patient_id, merged)
    WHERE patient_id = survivor AND stored_patient_id = ANY (of_chart);
    left_ids := ARRAY(
        SELECT appointment.id FROM public.appointments AS appointment
        WHERE appointment.patient_id = survivor AND appointment.stored_patient_id IS NULL
          AND appointment.created_at > chart.merged_at
        UNION ALL
        SELECT record.id FROM public.medical_records AS record
        WHERE record.patient_id = survivor AND record.stored_patient_id IS NULL
          AND record.date > chart.merged_at
        ORDER BY 1);
END
$$;

-- As in migration 0013, and with the id that the record was written with.
CREATE OR REPLACE FUNCTION retract_record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored public.medical_records;
BEGIN
    SELECT * INTO stored FROM public.medical_records WHERE id = NEW.record_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such record' USING ERRCODE = 'foreign_key_violation';
    END IF;
    PERFORM public.keep_original(stored, NEW.request_id);
    NEW.patient_id := stored.patient_id;
    NEW.stored_patient_id := stored.stored_patient_id;
    NEW.doctor_id := stored.doctor_id;
    NEW.date := stored.date;
    NEW.created_at := stored.created_at;
    DELETE FROM public.medical_records WHERE id = NEW.record_id;
    RETURN NEW;
END
$$
