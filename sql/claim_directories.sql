-- Takes or renews the lease of each directory that nobody else watches, and returns how all of them stand: one instance watches
-- a directory at a time. A lease is renewed when half of it is over, so that most calls write nothing. After a crash another
-- instance takes it when it ends.
create function msal_logout.claim_directories(tenant_ids text[], holder uuid, lease_seconds int)
returns table (tenant_id text, is_mine boolean, is_due boolean, is_sweep_due boolean, state jsonb)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  hint_pause constant interval := '2 seconds'; -- one round in that time, however many hints come
  lease interval := claim_directories.lease_seconds * interval '1 second';
begin
  insert into msal_logout.directories (tenant_id)
  select t.id from unnest(claim_directories.tenant_ids) t (id)
  where not exists (select from msal_logout.directories d where d.tenant_id = t.id)
  order by t.id collate "C"
  on conflict (tenant_id) do nothing;
  update msal_logout.directories u set holder = claim_directories.holder, held_until = now() + lease
  where u.tenant_id in (
    select d.tenant_id from msal_logout.directories d
    where d.tenant_id = any (claim_directories.tenant_ids)
      and (d.held_until is null or d.held_until <= now()
        or d.holder = claim_directories.holder and d.held_until <= now() + lease / 2)
    for update skip locked);
  return query
  select d.tenant_id, d.holder is not distinct from claim_directories.holder,
    -- A sweep that was interrupted does not wait for the next delta query; one of a directory that asks to be left alone does.
    d.due_at <= now() or d.sweep_due_at <= now() and d.delta_failure is null
      or d.is_hinted and d.delta_failure is null and (d.begun_at is null or d.begun_at <= now() - hint_pause),
    d.sweep_due_at <= now(), to_jsonb(d)
  from msal_logout.directories d where d.tenant_id = any (claim_directories.tenant_ids);
end
$$;
