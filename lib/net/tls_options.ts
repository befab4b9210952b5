/**
 * TLS as a user asks for it, with the credentials that QEMU's users have: a folder of certificates,
 * or one with a file of shared keys.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { parseEndpoint } from "./endpoint.ts";

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

/** A shared key in the file `keys.psk` of a folder, as QEMU's `tls-creds-psk` has it. */
export interface TlsPskOptions {
  readonly kind: "psk";
  /** Has `keys.psk`: lines of a user's name, a colon, and the key in hexadecimal. */
  readonly dir: string;
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
  | { readonly kind: "psk"; readonly dir: string; readonly username: string };

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
  username: true,
} satisfies OptionNames<TlsPskOptions>;

const USERNAME_DEFAULT = "qemu";

/**
 * Checks options.
 *
 * @throws {TypeError} for those that cannot be.
 */
export function tlsConfig(options: TlsOptions | undefined): TlsConfig | undefined {
  if (options === undefined) return undefined;
  const { kind, dir } = options;
  if (typeof dir !== "string" || dir === "") {
    throw new TypeError("Cannot use TLS: dir must name the folder of the credentials");
  }
  if (kind === "psk") {
    checkOptionNames(PSK_OPTIONS, options, "tls");
    return { kind, dir, username: options.username ?? USERNAME_DEFAULT };
  }
  if (kind === "x509") {
    checkOptionNames(X509_OPTIONS, options, "tls");
    const { verifyPeer = true, hostname, allow } = options;
    if (allow !== undefined && !verifyPeer) {
      throw new TypeError("Cannot use TLS: allow needs verifyPeer, a name alone proves nothing");
    }
    const names = typeof allow === "string" ? [allow] : allow;
    return { kind, dir, verifyPeer, hostname, allow: names };
  }
  throw new TypeError(`Cannot use TLS of kind ${String(kind)}: must be x509 or psk`);
}

/** Fills in the name that a sender expects in the receiver's certificate: the host it connects to. */
export function withHostname(
  tls: TlsOptions | undefined,
  endpoint: string,
): TlsOptions | undefined {
  if (tls?.kind !== "x509" || tls.hostname !== undefined) return tls;
  const parsed = parseEndpoint(endpoint);
  return { ...tls, hostname: "host" in parsed ? parsed.host : undefined };
}
