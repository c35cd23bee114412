/** What one look of `msal-logout check` has shown. */
export interface Finding {
  /** What was looked at. */
  readonly check:
    | 'configuration'
    | 'database'
    | 'schema'
    | 'role'
    | 'spool'
    | 'issuer'
    | 'clock'
    | 'directory'
    | 'stream'
    | 'operators'
  readonly status: 'passed' | 'warning' | 'failed'
  /** For programs, and stable; null where nothing is to be said. */
  readonly code: string | null
  readonly message: string
  /** What to do about it; null where it passed. */
  readonly advice: string | null
}

export function passed(check: Finding['check'], message: string): Finding {
  return { check, status: 'passed', code: null, message, advice: null }
}

export function warning(check: Finding['check'], code: string, message: string, advice: string): Finding {
  return { check, status: 'warning', code, message, advice }
}

export function failed(check: Finding['check'], code: string, message: string, advice: string): Finding {
  return { check, status: 'failed', code, message, advice }
}
