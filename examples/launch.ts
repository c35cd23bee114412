/** How an example app that is no Node program is started, for its test and for the demo. */
export interface LaunchOptions {
  readonly port: number
  /** `postgres://<role>:<password>@<host>:<port>/<database>`, as the role registered for the client id. */
  readonly databaseUrl: string
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  /** What answers GET with a bearer token. */
  readonly apiUrl: string
  /** The provider's certificate, in PEM, if the system does not know it. */
  readonly certificateFile: string
  /** Where files are put that the app needs while it runs. */
  readonly folder: string
}

export interface Command {
  readonly command: string
  readonly args: readonly string[]
  readonly env: Record<string, string>
}
