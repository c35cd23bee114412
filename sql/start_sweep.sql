-- Begins the purge of a whole app or tenant, or counts what it would delete: exactly one of `client_id` and `tenant_id` is
-- given. `sweep_step` carries it out.
-- Outcomes: 'running', 'dry_run' (only counted), 'duplicate' (the id is known), 'too_many' (more than `max_accounts`).
create function msal_logout.start_sweep(
  id uuid, source text, client_id text, tenant_id text, reason text, actor text,
  dry_run boolean, max_accounts bigint, request_hash bytea,
  out outcome text, out accounts bigint, out sessions bigint, out rows bigint, out by_client jsonb
)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  k text := coalesce('app=' || start_sweep.client_id, 'tenant=' || start_sweep.tenant_id);
  begun_at timestamptz;
  one_row_each boolean;
begin
  if num_nonnulls(start_sweep.client_id, start_sweep.tenant_id) <> 1 then
    raise exception 'a sweep needs exactly one of "client_id" and "tenant_id"' using errcode = 'invalid_parameter_value';
  end if;
  if exists (select from msal_logout.records r where r.id = start_sweep.id) then
    outcome := 'duplicate';
    return;
  end if;

  -- Of a million accounts the ids are sorted or hashed on disk, their hashes hardly. If no two are equal, each row is an account.
  select count(*), count(*) = count(distinct hashtextextended(a.home_account_id, 0)) into accounts, one_row_each
  from (
    select t.home_account_id from msal_logout.token_cache t
    where t.client_id = start_sweep.client_id and t.home_account_id is not null
    union all
    select t.home_account_id from msal_logout.token_cache t
    where t.tenant_id = start_sweep.tenant_id and t.home_account_id is not null
  ) a;
  if not one_row_each then
    select count(*) into accounts
    from (
      select t.account_issuer, t.home_account_id from msal_logout.token_cache t
      where t.client_id = start_sweep.client_id and t.home_account_id is not null
      union
      select t.account_issuer, t.home_account_id from msal_logout.token_cache t
      where t.tenant_id = start_sweep.tenant_id and t.home_account_id is not null
    ) a;
  end if;

  if start_sweep.dry_run then
    outcome := 'dry_run';
    with found as materialized (
      select t.client_id, t.partition_key from msal_logout.token_cache t where t.client_id = start_sweep.client_id
      union all
      select t.client_id, t.partition_key from msal_logout.token_cache t where t.tenant_id = start_sweep.tenant_id
    )
    select
      (select count(*) from found),
      (select coalesce(jsonb_object_agg(c.client_id, jsonb_build_object('accounts', 0, 'sessions', 0, 'rows', c.n)), '{}')
        from (select f.client_id, count(*) as n from found f group by f.client_id) c),
      (select coalesce(sum(s.n), 0) from found f cross join lateral (
        select count(*) as n from msal_logout.sessions s
        where s.partition_key = f.partition_key and s.client_id is not distinct from f.client_id offset 0) s)
    into rows, by_client, sessions;
    return;
  end if;
  if accounts > start_sweep.max_accounts then
    outcome := 'too_many';
    return;
  end if;

  -- First the lock, then the time: a login that holds it now is stored before this begins, and from here on none is accepted
  -- whose ID token is older.
  perform msal_logout.lock_keys(array[''], array[k]);
  begun_at := clock_timestamp();
  perform msal_logout.lock_keys(array[''], array[k], array[floor(extract(epoch from begun_at))::bigint], null, array[86400]);
  insert into msal_logout.records (
    id, at, source, client_id, tenant_id, revoke_before, reason, actor, status, request_hash, total, last_generation, swept_to)
  values (
    start_sweep.id, begun_at, start_sweep.source, start_sweep.client_id, start_sweep.tenant_id,
    floor(extract(epoch from begun_at))::bigint, start_sweep.reason, start_sweep.actor, 'running', start_sweep.request_hash,
    accounts,
    -- What is there now, by any clock that its generation came from. A row that comes later is given a later one, and lives.
    greatest(
      (extract(epoch from begun_at) * 1000000)::bigint,
      (select max(t.generation) from msal_logout.token_cache t where t.client_id = start_sweep.client_id),
      (select max(t.generation) from msal_logout.token_cache t where t.tenant_id = start_sweep.tenant_id)),
    0)
  on conflict (id) do nothing;
  outcome := case when found then 'running' else 'duplicate' end;
end
$$;
