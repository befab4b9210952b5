/**
 * What two sides may agree on: TLS 1.3 and one of its suites.
 *
 * @module
 */

/** The protocol of all connections. */
export const TLS_PROTOCOL = "TLS 1.3";

/** A suite, by its registered name. */
export type TlsSuite =
  "TLS_AES_128_GCM_SHA256" | "TLS_AES_256_GCM_SHA384" | "TLS_CHACHA20_POLY1305_SHA256";

/** All of them, the first preferred. */
export const TLS_SUITES: readonly TlsSuite[] = [
  "TLS_AES_128_GCM_SHA256",
  "TLS_AES_256_GCM_SHA384",
  "TLS_CHACHA20_POLY1305_SHA256",
];

/** How the connections of a session are encrypted. */
export interface TlsStatistics {
  /** Always `TLS 1.3`. */
  readonly protocol: string;
  /** Suite of the main connection; the others have the same unless a peer wants it otherwise. */
  readonly suite: TlsSuite;
  /** The library that does it, a name of {@linkcode Capabilities.libraries}. */
  readonly library: string;
}

/** GnuTLS's numbers of the ciphers, in the order of the suites. */
const CIPHERS = [10, 11, 23];

/** The suite behind GnuTLS's number of a cipher. */
export function suiteOf(cipher: number): TlsSuite | undefined {
  return TLS_SUITES[CIPHERS.indexOf(cipher)];
}
