-- The directory objects of a tenant that are in the cache, in their order: those that ID tokens named, and those that are known
-- by the home of their account alone. `after`: the last one seen; '' at first.
-- `oldest`: the ID token that was issued first. `is_home`: the object's own account is there, `<object>.<tenant>`. `is_guest`: an
-- account of another tenant is, which was the object's guest.
-- Other ids than GUIDs are no objects.
create function msal_logout.list_watched(tenant_id text, after text, max_objects int)
returns table (object_id text, oldest bigint, is_home boolean, is_guest boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_hashagg = off
as $$
#variable_conflict use_column
declare
  guid constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
begin
  return query
  select w.object_id, min(w.oldest), bool_or(w.is_home), bool_or(w.is_guest)
  from (
    (select s.oid as object_id, min(s.issued_at) as oldest,
      bool_or(s.home_account_id = s.oid || '.' || s.tid) as is_home,
      bool_or(s.home_account_id <> s.oid || '.' || s.tid) as is_guest
    from msal_logout.sessions s
    where s.tid = list_watched.tenant_id and s.oid > list_watched.after -- keeps sessions_object
      and s.oid ~ guid and s.expires_at > now()
    group by s.oid order by s.oid limit list_watched.max_objects)
    union all
    (select left(s.home_account_id, 36) as object_id, min(s.issued_at) as oldest, true, false
    from msal_logout.sessions s
    where case when s.account_issuer like '%/*' then substring(s.home_account_id from '[.]([^.]*)$') end = list_watched.tenant_id
      and s.home_account_id > list_watched.after || '.' || list_watched.tenant_id -- keeps sessions_home
      and s.tid is distinct from case when s.account_issuer like '%/*' then substring(s.home_account_id from '[.]([^.]*)$') end
      and left(s.home_account_id, 36) ~ guid and length(s.home_account_id) = 37 + length(list_watched.tenant_id)
      and s.expires_at > now()
    group by s.home_account_id order by s.home_account_id limit list_watched.max_objects)
  ) w
  group by w.object_id order by w.object_id collate "C" limit list_watched.max_objects;
end
$$;
