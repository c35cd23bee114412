-- Writes down what half of a round has come to: its delta query, or its sweep. False if another instance holds the lease by
-- now: nothing is written then.
-- `result`: next_seconds; failure ({code, detail}, or null: it was good); summary (null: nothing is worth a line);
--   of a delta query: link (what came before it is committed; null: there are none), settings, forces_sweep;
--   of a sweep: round, watched, unwatched.
create function msal_logout.end_directory_round(tenant_id text, holder uuid, kind text, result jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  keep_rounds constant int := 20;
  is_good boolean := result -> 'failure' = 'null';
  is_delta boolean := kind = 'delta';
  next_at timestamptz := now() + (result ->> 'next_seconds')::float8 * interval '1 second';
begin
  update msal_logout.directories d set
    due_at = case when is_delta then next_at else d.due_at end,
    delta_link = case when is_delta and is_good then result ->> 'link' else d.delta_link end,
    settings = case when is_delta and is_good then result ->> 'settings' else d.settings end,
    delta_at = case when is_delta and is_good and result ->> 'link' is not null then now() else d.delta_at end,
    delta_failure = case when is_delta then msal_logout.count_failure(d.delta_failure, result -> 'failure')
      else d.delta_failure end,
    sweep_due_at = case when not is_delta then next_at
      when (result ->> 'forces_sweep')::boolean then now() else d.sweep_due_at end,
    swept_at = case when not is_delta and is_good then now() else d.swept_at end,
    sweep_failure = case when is_delta then d.sweep_failure
      else msal_logout.count_failure(d.sweep_failure, result -> 'failure') end,
    watched = case when not is_delta and is_good then (result ->> 'watched')::bigint else d.watched end,
    unwatched = case when not is_delta and is_good then (result ->> 'unwatched')::bigint else d.unwatched end,
    good_at = case
      when is_good and not is_delta and d.delta_failure is null then now()
      when is_good and is_delta and d.sweep_failure is null and d.swept_at is not null and result ->> 'link' is not null
        then now()
      else d.good_at end,
    rounds = case when result -> 'summary' = 'null' then d.rounds else (
      select jsonb_agg(r.round order by r.position)
      from jsonb_array_elements(jsonb_build_array(result -> 'summary') || d.rounds) with ordinality r (round, position)
      where r.position <= keep_rounds) end
  where d.tenant_id = end_directory_round.tenant_id and d.holder = end_directory_round.holder and d.held_until > now();
  if not found then
    return false;
  end if;
  if is_good and not is_delta then
    -- What a whole sweep did not see any more is over.
    delete from msal_logout.directory_findings f
    where f.tenant_id = end_directory_round.tenant_id and f.round <> (result ->> 'round')::uuid
      and f.status in ('held', 'released', 'dropped', 'dry_run');
  end if;
  return true;
end
$$;
