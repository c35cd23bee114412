-- By the sid; if that is null by the subject, of a login without a sid.
create function msal_logout.session_active(client_id text, issuer text, sid text, subject text default null) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  key text := coalesce('sid=' || nullif(session_active.sid, ''), 'sub=' || nullif(session_active.subject, ''));
begin
  perform msal_logout.authorize(session_active.client_id);
  if key is null then
    raise exception '"sid" or "subject" must be given' using errcode = 'invalid_parameter_value';
  end if;
  return exists (
    select from msal_logout.sessions s
    where s.issuer = session_active.issuer and s.session_key = key
      and s.client_id is not distinct from session_active.client_id
      and s.expires_at - now() > interval '0'); -- keeps the index sessions_expiry out
end
$$;
