-- A verification event has come. False if its `state` is none of the last that were asked for: nothing is written then. One without
-- a state comes by the transmitter's own decision, and shows as well that the way is open. The same again does no harm.
create function msal_logout.verify_stream(name text, verification_state text, at timestamptz) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  update msal_logout.streams s set state = s.state || jsonb_build_object('verifiedAt', verify_stream.at)
  where s.name = verify_stream.name and (
    verify_stream.verification_state is null
    or exists (
      select from jsonb_array_elements(coalesce(s.state -> 'verifications', '[]')) v
      where v ->> 'state' = verify_stream.verification_state));
  return found;
end
$$;
