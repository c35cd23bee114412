import { request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { CookieJar } from 'tough-cookie'

const timeoutMs = 10_000

export interface Page {
  readonly url: string
  readonly status: number
  readonly body: string
}

/** As much of a browser as a sign-in needs: it keeps cookies, follows redirects, and sends forms. */
export function createBrowser(certificate: string) {
  const jar = new CookieJar()

  async function open(url: string, form?: URLSearchParams): Promise<Page> {
    let answer = await send(url, jar, certificate, form)
    for (let i = 0; i < 20 && answer.location !== undefined; i += 1) {
      answer = await send(new URL(answer.location, answer.url).href, jar, certificate)
    }
    return answer
  }

  return {
    open,

    /** The first answer, wherever it leads. */
    look: (url: string) => send(url, jar, certificate),

    /** Sends the only form of a page with its hidden fields and these. */
    async submit(page: Page, fields: Record<string, string> = {}): Promise<Page> {
      const action = /<form[^>]*\baction="([^"]*)"/.exec(page.body)?.[1]
      if (action === undefined) {
        throw new Error(`no form at ${page.url}`)
      }
      const form = new URLSearchParams()
      for (const [input] of page.body.matchAll(/<input[^>]*type="hidden"[^>]*>/g)) {
        const name = /\bname="([^"]*)"/.exec(input)?.[1]
        if (name !== undefined) {
          form.set(name, /\bvalue="([^"]*)"/.exec(input)?.[1] ?? '')
        }
      }
      for (const [name, value] of Object.entries(fields)) {
        form.set(name, value)
      }
      return open(new URL(action.replaceAll('&amp;', '&'), page.url).href, form)
    }
  }
}

export type Browser = ReturnType<typeof createBrowser>

async function send(
  url: string,
  jar: CookieJar,
  ca: string,
  form?: URLSearchParams
): Promise<Page & { location: string | undefined }> {
  const request = new URL(url).protocol === 'https:' ? requestHttps : requestHttp
  const headers = {
    cookie: await jar.getCookieString(url),
    ...(form === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' })
  }
  return new Promise((resolve, reject) => {
    const sent = request(
      url,
      { method: form === undefined ? 'GET' : 'POST', headers, ca, signal: AbortSignal.timeout(timeoutMs) },
      (response) => {
        let body = ''
        response.setEncoding('utf8').on('data', (chunk: string) => {
          body += chunk
        })
        response.on('error', reject).on('end', () => {
          for (const cookie of response.headers['set-cookie'] ?? []) {
            jar.setCookieSync(cookie, url)
          }
          resolve({ url, status: response.statusCode ?? 0, body, location: response.headers.location })
        })
      }
    )
    sent.on('error', reject).end(form?.toString())
  })
}
