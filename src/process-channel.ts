/** The other process, as `process` and the workers of node:cluster have it. */
export interface ChannelPort {
  send(message: object, done: () => void): void
  /** @param take is called with each message that comes */
  listen(take: (message: Message) => void): void
}

/** What an end does when it is asked, by name. */
export type Calls = Readonly<Record<string, (argument: never) => unknown>>

type Argument<Call> = Call extends (argument: infer Given) => unknown ? Given : never
type Answer<Call> = Call extends (argument: never) => infer Given ? Awaited<Given> : never

/** The line to another process of this release, which is trusted. */
export interface Channel<Theirs> {
  /**
   * Has the other process do something.
   *
   * @param withinMs how long it may take, in milliseconds
   * @throws {ChannelError} if it failed there, took longer, or the other process has ended
   */
  call<Name extends keyof Theirs & string>(
    name: Name,
    argument: Argument<Theirs[Name]>,
    withinMs: number
  ): Promise<Answer<Theirs[Name]>>
  /**
   * Says something to the other process. No answer is awaited.
   *
   * @returns false if it is left out, since the other process has not taken what was said before
   */
  tell<Name extends keyof Theirs & string>(name: Name, argument: Argument<Theirs[Name]>): boolean
  /** The other process has ended: who waits for it, waits no longer. */
  end(): void
}

/** The other process did not do it. */
export class ChannelError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'ChannelError'
  }
}

/** As it comes: arguments and answers are of the types that both ends name. */
export type Message =
  | { readonly kind: 'call'; readonly id: number; readonly name: string; readonly argument: never }
  | { readonly kind: 'tell'; readonly name: string; readonly argument: never }
  | { readonly kind: 'answer'; readonly id: number; readonly answer: never }
  | { readonly kind: 'failure'; readonly id: number; readonly message: string }

interface Pending {
  resolve(answer: never): void
  reject(error: ChannelError): void
}

// What was said and not taken fills the memory.
const maxUntaken = 100

/**
 * Opens the line between the first process and one that it has forked.
 *
 * @param ours what this process does for the other one
 */
export function openChannel<Theirs>(port: ChannelPort, ours: Calls): Channel<Theirs> {
  const pending = new Map<number, Pending>()
  let lastId = 0
  let untaken = 0
  let isOver = false

  function send(message: object): void {
    if (!isOver) {
      untaken += 1
      port.send(message, () => {
        untaken -= 1
      })
    }
  }

  async function answer(id: number, name: string, argument: never): Promise<void> {
    try {
      send({ kind: 'answer', id, answer: await ours[name]?.(argument) })
    } catch (error) {
      send({ kind: 'failure', id, message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
    }
  }

  port.listen((message) => {
    switch (message.kind) {
      case 'call':
        void answer(message.id, message.name, message.argument)
        return
      case 'tell':
        ours[message.name]?.(message.argument)
        return
      case 'answer':
        pending.get(message.id)?.resolve(message.answer)
        return
      case 'failure':
        pending.get(message.id)?.reject(new ChannelError(message.message))
    }
  })

  return {
    call(name, argument, withinMs) {
      if (isOver) {
        return Promise.reject(new ChannelError('the process has ended'))
      }
      lastId += 1
      const id = lastId
      send({ kind: 'call', id, name, argument })
      let timer: NodeJS.Timeout | undefined
      return new Promise<Answer<Theirs[typeof name]>>((resolve, reject) => {
        timer = setTimeout(() => reject(new ChannelError(`"${name}" takes longer than ${withinMs} ms`)), withinMs)
        pending.set(id, { resolve, reject })
      }).finally(() => {
        clearTimeout(timer)
        pending.delete(id)
      })
    },

    tell(name, argument) {
      if (isOver || untaken >= maxUntaken) {
        return false
      }
      send({ kind: 'tell', name, argument })
      return true
    },

    end() {
      isOver = true
      for (const { reject } of pending.values()) {
        reject(new ChannelError('the process has ended'))
      }
    }
  }
}
