import { readFileSync, statSync } from 'node:fs'

/** A file's text, or what is wrong with the file. */
export type FileContent = { readonly text: string } | { readonly problem: string }

/** The most bytes of a secret. */
export const maxSecretBytes = 64 * 1024

/**
 * Reads a file as text, without a byte order mark.
 *
 * @param maxBytes a larger file is a problem
 * @returns the text, or the problem, which quotes the path and nothing of what is in the file
 */
export function readText(path: string, maxBytes: number): FileContent {
  try {
    const status = statSync(path)
    if (status.isDirectory()) {
      // Docker makes one where the file that is to be mounted is missing.
      return { problem: `"${path}" is a folder` }
    }
    if (!status.isFile() && !status.isFIFO()) {
      return { problem: `"${path}" is no file` }
    }
    if (status.size > maxBytes) {
      return { problem: `"${path}" is larger than ${maxBytes} bytes` }
    }
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(path)) }
  } catch (error) {
    return error instanceof Error && 'syscall' in error && 'code' in error
      ? { problem: `cannot read "${path}" (${error.code})` }
      : { problem: `"${path}" is not UTF-8` }
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
