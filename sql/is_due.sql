-- Whether a running sweep has yet to reach the row.
create function msal_logout.is_due(client_id text, tenant_id text, generation bigint) returns boolean
language plpgsql stable as $$
begin
  return exists (
    select from msal_logout.records r
    where r.status = 'running' -- keeps records_under_way
      and (r.client_id = is_due.client_id or r.tenant_id = is_due.tenant_id) and r.last_generation >= is_due.generation
  );
end
$$;
