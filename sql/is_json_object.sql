-- Catches its own errors: PostgreSQL's would quote the payload.
create function msal_logout.is_json_object(payload bytea) returns boolean
language plpgsql stable as $$
begin
  return json_typeof(convert_from(payload, 'UTF8')::json) = 'object';
exception
  -- No JSON, no UTF-8, no text of this database, or nested too deeply.
  when data_exception or statement_too_complex then
    return false;
end
$$;
