-- Takes the locks of one login, and returns whether it may be stored: none of its keys was ended at or after its ID token
-- was issued.
--
-- The order of locks, for every function of this schema:
--   1. shared: the app's and the tenant's row in `tombstones`
--   2. the keys of sessions and objects   3. the accounts   each sorted, one after the other
--   4. rows of token_cache, then sessions   5. the positions of the apps
-- Each step is a statement of its own: under read committed it then sees what was committed while it waited.
create function msal_logout.admit(
  client_id text, account_issuer text, home_account_id text,
  issuer text, sid text, subject text, issued_at bigint, oid text, tid text
) returns boolean
language plpgsql as $$
declare
  session_key text := coalesce('sid=' || sid, 'sub=' || subject);
  object_key text := 'object=' || tid || '/' || oid;
  app_key text := 'app=' || client_id;
  tenant_key text := case when account_issuer like '%/*' then 'tenant=' || substring(home_account_id from '[.]([^.]*)$') end;
begin
  perform msal_logout.share_keys(array[app_key, tenant_key]);
  perform msal_logout.lock_keys(array[issuer, issuer, ''], array[session_key, 'all=' || subject, object_key]);
  perform msal_logout.lock_keys(
    array[account_issuer, ''], array['account=' || home_account_id, 'account=' || home_account_id]);
  return not exists (
    select from msal_logout.tombstones t
    where (t.issuer, t.key) in (
      (admit.issuer, session_key), (admit.issuer, 'all=' || admit.subject), ('', object_key),
      (admit.account_issuer, 'account=' || admit.home_account_id), ('', 'account=' || admit.home_account_id),
      ('', app_key), ('', tenant_key))
    and (t.revoke_before >= admit.issued_at or (admit.sid is null and t.sidless_revoke_before >= admit.issued_at))
  );
end
$$;
