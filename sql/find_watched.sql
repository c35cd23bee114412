-- As `list_watched`: those of these objects that are in the cache.
create function msal_logout.find_watched(tenant_id text, object_ids text[])
returns table (object_id text, oldest bigint, is_home boolean, is_guest boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
  return query
  select o.id, min(s.issued_at), bool_or(s.is_home), bool_or(not s.is_home)
  from unnest(find_watched.object_ids) o (id)
  cross join lateral (
    (select s.issued_at, s.home_account_id = o.id || '.' || find_watched.tenant_id as is_home
    from msal_logout.sessions s
    where s.tid = find_watched.tenant_id and s.oid = o.id and s.expires_at > now() -- keeps sessions_object
    offset 0)
    union all
    (select s.issued_at, true
    from msal_logout.sessions s
    where s.home_account_id = o.id || '.' || find_watched.tenant_id -- keeps sessions_account
      and s.account_issuer like '%/*' and s.expires_at > now()
    offset 0)
  ) s
  group by o.id;
end
$$;
