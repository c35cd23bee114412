-- One app knows one user of an issuer by one subject, so any live session of the row will do. Another subject is another user
-- under the same account id, who would be handed the tokens of the first one. One that a sign-out in steps has yet to reach is as good as
-- gone.
create function msal_logout.check_subject(client_id text, partition_key text, issuer text, subject text) returns void
language plpgsql stable as $$
declare
  known_subject text;
begin
  select s.subject into known_subject from msal_logout.sessions s
  where s.partition_key = check_subject.partition_key and s.client_id is not distinct from check_subject.client_id
    and s.issuer is not distinct from check_subject.issuer and s.expires_at - now() > interval '0'
    and not msal_logout.is_in_steps(s.account_issuer, s.home_account_id, s.generation, true)
  limit 1;
  if known_subject <> check_subject.subject then
    raise exception 'the account already bears another subject of this issuer' using errcode = 'ML002',
      hint = 'two users have one account id: let the provider send an object id that is unique to each user';
  end if;
end
$$;
