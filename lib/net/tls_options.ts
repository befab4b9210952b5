/**
 * TLS as a user asks for it, with the credentials that QEMU's users have: a folder of certificates,
 * or one with a file of shared keys.
 *
 * @module
 */
import { TLS_KEYS_BYTES_MAX } from "../limits.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import type { Endpoint } from "./endpoint.ts";

/** Certificates in a folder, named as QEMU's `tls-creds-x509` wants them. */
export interface TlsX509Options {
  readonly kind: "x509";
  /**
   * Has `ca-cert.pem`; a receiver's also `server-cert.pem` and `server-key.pem`, a sender's
   * `client-cert.pem` and `client-key.pem` if it has any. `ca-crl.pem` is used where it is there.
   */
  readonly dir: string;
  /**
   * Whether the other side must show a certificate of that authority. Default true. A sender that is
   * told false takes any receiver for the right one.
   */
  readonly verifyPeer?: boolean | undefined;
  /** Name in the receiver's certificate; a sender's default is the host of its endpoint. */
  readonly hostname?: string | undefined;
  /**
   * Distinguished names of the senders that a receiver takes, such as `CN=host,O=firm`. Default: all
   * with a certificate of the authority.
   */
  readonly allow?: string | readonly string[] | undefined;
}

/** A shared key as QEMU's `tls-creds-psk` has it: of `dir` or of `keys`. */
export interface TlsPskOptions {
  readonly kind: "psk";
  /** Folder with a file `keys.psk`: lines of a user's name, a colon, and the key in hexadecimal. */
  readonly dir?: string | undefined;
  /** Such lines, without a file. */
  readonly keys?: string | undefined;
  /** Whose key a sender uses. Default `qemu`. */
  readonly username?: string | undefined;
}

/** How connections are encrypted, the same on both sides. */
export type TlsOptions = TlsX509Options | TlsPskOptions;

/** Checked options; cloneable, without a secret. */
export type TlsConfig =
  | {
      readonly kind: "x509";
      readonly dir: string;
      readonly verifyPeer: boolean;
      readonly hostname: string | undefined;
      readonly allow: readonly string[] | undefined;
    }
  | {
      readonly kind: "psk";
      readonly keys: PskKeys;
      readonly username: string;
    };

/** Where shared keys are: a folder, or memory that threads share, so that no message has them. */
type PskKeys =
  | { readonly dir: string; readonly memory?: undefined }
  | { readonly dir?: undefined; readonly memory: SharedArrayBuffer };

const X509_OPTIONS = {
  kind: true,
  dir: true,
  verifyPeer: true,
  hostname: true,
  allow: true,
} satisfies OptionNames<TlsX509Options>;

const PSK_OPTIONS = {
  kind: true,
  dir: true,
  keys: true,
  username: true,
} satisfies OptionNames<TlsPskOptions>;

const USERNAME_DEFAULT = "qemu";

/**
 * Checks options. The name that a sender expects in the receiver's certificate is the host it connects
 * to unless another is given.
 *
 * @throws {TypeError} for those that cannot be.
 */
export function tlsConfig(
  options: TlsOptions | undefined,
  endpoint: Endpoint,
): TlsConfig | undefined {
  if (options === undefined) return undefined;
  if (options.kind === "psk") {
    checkOptionNames(PSK_OPTIONS, options, "tls");
    const { kind, username = USERNAME_DEFAULT } = options;
    return { kind, keys: pskKeys(options), username };
  }
  if (options.kind === "x509") {
    checkOptionNames(X509_OPTIONS, options, "tls");
    const { kind, verifyPeer = true, allow } = options;
    const { hostname = "host" in endpoint ? endpoint.host : undefined } = options;
    if (allow !== undefined && !verifyPeer) {
      throw new TypeError("Cannot use TLS: allow needs verifyPeer, a name alone proves nothing");
    }
    const names = typeof allow === "string" ? [allow] : allow;
    return { kind, dir: folder(options.dir), verifyPeer, hostname, allow: names };
  }
  const { kind } = options as { kind: unknown };
  throw new TypeError(`Cannot use TLS of kind ${String(kind)}: must be x509 or psk`);
}

function folder(dir: unknown): string {
  if (typeof dir === "string" && dir !== "") return dir;
  throw new TypeError("Cannot use TLS: dir must name the folder of the credentials");
}

function pskKeys({ dir, keys }: TlsPskOptions): PskKeys {
  if (keys === undefined) return { dir: folder(dir) };
  if (dir !== undefined) throw new TypeError("Cannot use TLS: must have dir or keys, not both");
  // No message here may have a part of them.
  const lines = keys.split("\n");
  const wrong = lines.findIndex((line) => line.trim() !== "" && !KEY_LINE.test(line.trim()));
  if (wrong >= 0 || keys.trim() === "") {
    throw new TypeError(
      `Cannot use TLS: line ${Math.max(wrong, 0) + 1} of keys must be a name, a colon and a key in hexadecimal`,
    );
  }
  const bytes = new TextEncoder().encode(keys);
  if (bytes.byteLength > TLS_KEYS_BYTES_MAX) {
    throw new TypeError(
      `Cannot use TLS: keys have ${bytes.byteLength} bytes, must have at most ${TLS_KEYS_BYTES_MAX}`,
    );
  }
  const memory = new SharedArrayBuffer(bytes.byteLength);
  new Uint8Array(memory).set(bytes);
  return { memory };
}

const KEY_LINE = /^[^:]+:(?:[\da-f]{2})+$/i;
