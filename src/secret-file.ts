import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'

/** A file's text, or what is wrong with the file. */
export type FileContent = { readonly text: string } | { readonly problem: string }

/** The most bytes of a secret. */
export const maxSecretBytes = 64 * 1024

// A service that reads its configuration again must not be held up by who writes into a pipe, or does not.
const pipeWaitMs = 1_000

/**
 * Reads a file as text, without a byte order mark. A pipe is read, too: a shell gives one for `<(…)`.
 *
 * @param maxBytes a larger file is a problem
 * @returns the text, or the problem, which quotes the path and nothing of what is in the file
 */
export function readText(path: string, maxBytes: number): FileContent {
  let file: number | undefined
  try {
    // One that is opened without this waits for somebody who writes.
    file = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
    const status = fstatSync(file)
    if (status.isDirectory()) {
      // Docker makes one where the file that is to be mounted is missing.
      return { problem: `"${path}" is a folder` }
    }
    if (!status.isFile() && !status.isFIFO()) {
      return { problem: `"${path}" is no file` }
    }
    const content = readUpTo(file, maxBytes + 1)
    if (content === undefined) {
      return { problem: `"${path}" is a pipe, and nobody has written into it within ${pipeWaitMs / 1_000} s` }
    }
    if (content.length > maxBytes) {
      return { problem: `"${path}" is larger than ${maxBytes} bytes` }
    }
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(content) }
  } catch (error) {
    return error instanceof Error && 'syscall' in error && 'code' in error
      ? { problem: `cannot read "${path}" (${error.code})` }
      : { problem: `"${path}" is not UTF-8` }
  } finally {
    if (file !== undefined) {
      closeSync(file)
    }
  }
}

/** So much of it, and no more; undefined if a pipe does not end in time. */
function readUpTo(file: number, maxBytes: number): Buffer | undefined {
  const parts: Buffer[] = []
  const endsAt = performance.now() + pipeWaitMs
  let length = 0
  while (length < maxBytes) {
    const part = Buffer.alloc(Math.min(maxBytes - length, 64 * 1024))
    const count = readSome(file, part)
    if (count === 0) {
      break
    }
    if (count === undefined) {
      if (performance.now() > endsAt) {
        return undefined
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
      continue
    }
    parts.push(part.subarray(0, count))
    length += count
  }
  return Buffer.concat(parts)
}

/** How many bytes came: 0 at the end, undefined if none are there now. */
function readSome(file: number, part: Buffer): number | undefined {
  try {
    return readSync(file, part)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') {
      return undefined
    }
    throw error
  }
}

/** As {@link readText}, of a secret: white space around it is no part of it, and an empty one is a problem. */
export function readSecretFile(path: string): FileContent {
  const content = readText(path, maxSecretBytes)
  if ('problem' in content) {
    return content
  }
  const text = content.text.trim()
  return text === '' ? { problem: `"${path}" is empty` } : { text }
}
