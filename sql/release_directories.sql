-- Gives the leases of an instance back, so that the next one need not wait for their end.
create function msal_logout.release_directories(holder uuid) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update msal_logout.directories d set holder = null, held_until = null where d.holder = release_directories.holder;
end
$$;
