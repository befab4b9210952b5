/**
 * Keys and certificates in a folder, by the names that QEMU gives them. What is read here stays in the
 * library that uses it: no key is ever in a message between threads, in an error or in a log.
 *
 * @module
 */
import { addressOf } from "../../ffi/arena.ts";
import { close, makeMemoryFile, unwrap, writeFd } from "../../ffi/libc.ts";
import { fileSystem } from "../../ffi/runtime/runtime.ts";
import { TlsCredentials, TlsFileError, TlsSettings } from "../../ffi/libgnutls.ts";
import { TlsError } from "../errors.ts";
import { TLS_KEYS_BYTES_MAX } from "../limits.ts";
import type { TlsConfig } from "./tls_options.ts";

/** Which side of a connection. */
export type TlsSide = "client" | "server";

/*
 * AES first, and with the shorter key, whatever the peer prefers: GnuTLS would take ChaCha20 for
 * shared keys, at a third of the speed. A shared key's hash leaves no suite with AES-256.
 */
const X509_PRIORITIES =
  "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305";
const PSK_PRIORITIES =
  "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-POLY1305:+ECDHE-PSK:+DHE-PSK:+PSK";
const SERVER_PRECEDENCE = ":%SERVER_PRECEDENCE";
const PURPOSES: Readonly<Record<TlsSide, string>> = {
  server: "1.3.6.1.5.5.7.3.1", // id-kp-serverAuth
  client: "1.3.6.1.5.5.7.3.2",
};

const KEY_FILE = "keys.psk";

/** Credentials of one side, and how its sessions are made with them. */
export interface LoadedCredentials extends Disposable {
  readonly settings: TlsSettings;
  /** About files that others may read or change. */
  readonly warnings: readonly string[];
}

/**
 * Reads what `config` names.
 *
 * @throws {TlsError} for a file that is missing or is none, {MissingLibraryError} without GnuTLS.
 */
export function loadCredentials(config: TlsConfig, side: TlsSide): LoadedCredentials {
  using made = new DisposableStack();
  const credentials = guarded(() =>
    config.kind === "psk" ? pskCredentials(config, side, made) : certificates(config, side),
  );
  made.use(credentials);
  const suffix = side === "server" ? SERVER_PRECEDENCE : "";
  const priorities = (config.kind === "psk" ? PSK_PRIORITIES : X509_PRIORITIES) + suffix;
  const verified = config.kind === "x509" && config.verifyPeer;
  const peer = side === "server" ? "client" : "server";
  const check = verified
    ? { hostname: side === "client" ? config.hostname : undefined, purpose: PURPOSES[peer] }
    : undefined;
  const settings = new TlsSettings(side, credentials, priorities, check);
  const owned = made.move();
  return {
    settings,
    warnings: keyFileWarnings(config, side),
    [Symbol.dispose]: () => owned.dispose(),
  };
}

/** A key is a secret only while nobody else can have it, or put another in its place. */
function keyFileWarnings(config: TlsConfig, side: TlsSide): string[] {
  const dir = config.kind === "psk" ? config.keys.dir : config.dir;
  if (dir === undefined) return [];
  const file = `${dir}/${config.kind === "psk" ? KEY_FILE : `${side}-key.pem`}`;
  const mode = (fileSystem().statSync(file, { throwIfNoEntry: false })?.mode ?? 0) & 0o777;
  if ((mode & 0o027) === 0) return [];
  return [
    `Key file ${file} has mode ${mode.toString(8).padStart(4, "0")}: others may ` +
      `${(mode & 0o022) === 0 ? "read" : "change"} it, must be 0600 or 0640`,
  ];
}

function certificates(
  { dir, verifyPeer, hostname }: TlsConfig & { kind: "x509" },
  side: TlsSide,
): TlsCredentials {
  if (side === "client" && verifyPeer && hostname === undefined) {
    throw error("the endpoint has no host, so tls.hostname must say the name in the certificate");
  }
  const { existsSync } = fileSystem();
  const certificate = `${dir}/${side}-cert.pem`;
  const key = `${dir}/${side}-key.pem`;
  const revoked = `${dir}/ca-crl.pem`;
  // A client may have none; one that has a part of it has made a mistake.
  const hasOwn = side === "server" || existsSync(certificate) || existsSync(key);
  return TlsCredentials.x509({
    authorities: verifyPeer ? readable(`${dir}/ca-cert.pem`) : undefined,
    revoked: existsSync(revoked) ? readable(revoked) : undefined,
    own: hasOwn ? { certificate: readable(certificate), key: readable(key) } : undefined,
  });
}

function pskCredentials(
  { keys, username }: TlsConfig & { kind: "psk" },
  side: TlsSide,
  owned: DisposableStack,
): TlsCredentials {
  const { dir, memory } = keys;
  if (side === "server") {
    return TlsCredentials.pskServer(
      dir === undefined ? memoryFile(memory, owned) : readable(`${dir}/${KEY_FILE}`),
    );
  }
  const file = dir === undefined ? "tls.keys" : readable(`${dir}/${KEY_FILE}`);
  const content =
    dir === undefined ? Buffer.from(new Uint8Array(memory)) : fileSystem().readFileSync(file);
  try {
    if (content.byteLength > TLS_KEYS_BYTES_MAX) {
      throw error(`${file} has ${content.byteLength} bytes, at most ${TLS_KEYS_BYTES_MAX}`);
    }
    const key = keyOf(content, username);
    if (key === undefined) throw error(`${file} has no key of ${JSON.stringify(username)}`);
    return TlsCredentials.pskClient(username, key);
  } finally {
    content.fill(0);
  }
}

/** A file that is in memory only, since the library reads keys of a server from files. */
function memoryFile(memory: SharedArrayBuffer, owned: DisposableStack): string {
  const fd = unwrap("make a file in memory", makeMemoryFile("multifd-tls-keys"));
  owned.defer(() => close(fd));
  const bytes = new Uint8Array(memory);
  unwrap("write a file in memory", writeFd(fd, addressOf(memory), bytes.byteLength));
  return `/proc/self/fd/${fd}`;
}

/** The hexadecimal digits behind a user's name, as bytes that may be wiped; no text is made of them. */
function keyOf(content: Buffer, username: string): Buffer | undefined {
  const head = Buffer.from(`${username}:`);
  for (let at = 0; at < content.byteLength;) {
    const newline = content.indexOf(0x0a, at);
    let end = newline < 0 ? content.byteLength : newline;
    const next = end + 1;
    while (end > at && content[end - 1] <= 0x20) end--;
    if (content.subarray(at, at + head.byteLength).equals(head) && end > at + head.byteLength) {
      return content.subarray(at + head.byteLength, end);
    }
    at = next;
  }
  return undefined;
}

function readable(file: string): string {
  try {
    const { accessSync, constants } = fileSystem();
    accessSync(file, constants.R_OK);
    return file;
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code ?? "unreadable";
    throw error(`${file} cannot be read (${errno})`);
  }
}

function guarded<Result>(load: () => Result): Result {
  try {
    return load();
  } catch (cause) {
    if (cause instanceof TlsFileError) throw error(cause.message);
    throw cause;
  }
}

function error(reason: string): TlsError {
  return new TlsError("ERR_MULTIFD_TLS_CREDENTIALS", `Cannot use TLS credentials: ${reason}`);
}
