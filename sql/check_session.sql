-- What every function that stores a session asks of it.
create function msal_logout.check_session(
  client_id text, partition_key text, home_account_id text,
  issuer text, sid text, subject text, issued_at bigint, oid text, tid text
) returns void
language plpgsql stable as $$
declare
  now_seconds bigint := extract(epoch from now());
  index_bytes int;
begin
  perform msal_logout.check_id('home_account_id', home_account_id);
  perform msal_logout.check_id('issuer', issuer);
  perform msal_logout.check_id('subject', subject);
  if issuer like '%/*' then
    raise exception '"issuer" must not end in "/*"' using errcode = 'invalid_parameter_value';
  end if;
  if sid is not null then
    perform msal_logout.check_id('sid', sid);
  end if;
  if octet_length(oid) > 255 or octet_length(tid) > 255 then
    raise exception '"oid" and "tid" must have 255 bytes or fewer' using errcode = 'invalid_parameter_value';
  end if;
  if issued_at is null or issued_at <= 0 then
    raise exception '"issued_at" must be the "iat" of the ID token, in seconds since 1970'
      using errcode = 'invalid_parameter_value';
  end if;
  -- A session from the future would be spared by every logout until then.
  if issued_at > now_seconds + 600 then
    raise exception '"issued_at" must be in seconds, and 10 minutes ahead at most: % is % seconds ahead',
      issued_at, issued_at - now_seconds
      using errcode = 'invalid_parameter_value', hint = 'is it in milliseconds, or is a clock wrong?';
  end if;
  -- The primary key of `sessions` is an entry of a btree, which holds 2,704 bytes.
  index_bytes := octet_length(issuer) + octet_length(coalesce(sid, subject)) + octet_length(client_id)
    + octet_length(partition_key);
  if index_bytes > 2600 then
    raise exception '"issuer", "sid" (or "subject"), "client_id" and "partition_key" must have 2600 bytes or fewer together: they have %',
      index_bytes using errcode = 'invalid_parameter_value';
  end if;
  -- So are those of the indexes token_cache_client and token_cache_tenant.
  index_bytes := octet_length(issuer) + octet_length(home_account_id)
    + greatest(octet_length(client_id), octet_length(substring(home_account_id from '[.]([^.]*)$')));
  if index_bytes > 2600 then
    raise exception '"issuer", "home_account_id" and "client_id" (or the tenant in "home_account_id") must have 2600 bytes or fewer together: they have %',
      index_bytes using errcode = 'invalid_parameter_value';
  end if;
end
$$;
