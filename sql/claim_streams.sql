-- Takes or renews the lease of each stream that nobody else has, and returns how all of them stand: one instance polls a stream and
-- manages it at a time. As `claim_directories`.
create function msal_logout.claim_streams(names text[], holder uuid, lease_seconds int)
returns table (name text, is_mine boolean, state jsonb)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  lease interval := claim_streams.lease_seconds * interval '1 second';
begin
  insert into msal_logout.streams (name)
  select n.name from unnest(claim_streams.names) n (name)
  where not exists (select from msal_logout.streams s where s.name = n.name)
  order by n.name collate "C"
  on conflict (name) do nothing;
  update msal_logout.streams u set holder = claim_streams.holder, held_until = now() + lease
  where u.name in (
    select s.name from msal_logout.streams s
    where s.name = any (claim_streams.names)
      and (s.held_until is null or s.held_until <= now()
        or s.holder = claim_streams.holder and s.held_until <= now() + lease / 2)
    for update skip locked);
  return query
  select s.name, s.holder is not distinct from claim_streams.holder, s.state
  from msal_logout.streams s where s.name = any (claim_streams.names);
end
$$;
