-- An operator's decision on an open breaker: what it holds is 'released', and done in the next round, or 'dropped', and not done
-- as long as the directory says nothing new. Returns how many objects it is about; null if no breaker is open.
create function msal_logout.decide_directory(tenant_id text, decision text, actor text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  objects bigint;
begin
  if decision not in ('released', 'dropped') then
    raise exception '"decision" must be released or dropped' using errcode = 'invalid_parameter_value';
  end if;
  update msal_logout.directories d set breaker = null, due_at = now() -- the lock of its row orders it with the round's
  where d.tenant_id = decide_directory.tenant_id and d.breaker is not null;
  if not found then
    return null;
  end if;
  update msal_logout.directory_findings f set status = decide_directory.decision
  where f.tenant_id = decide_directory.tenant_id and f.status = 'held';
  get diagnostics objects = row_count;
  update msal_logout.directories d set decision = jsonb_build_object(
    'decision', decide_directory.decision, 'actor', decide_directory.actor, 'at', now(), 'accounts', objects)
  where d.tenant_id = decide_directory.tenant_id;
  return objects;
end
$$;
