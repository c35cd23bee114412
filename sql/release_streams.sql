-- Gives the leases of an instance back, so that the next one need not wait for their end.
create function msal_logout.release_streams(holder uuid) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update msal_logout.streams s set holder = null, held_until = null where s.holder = release_streams.holder;
end
$$;
