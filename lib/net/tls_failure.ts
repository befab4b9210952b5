/**
 * What went wrong with TLS, and on which side.
 *
 * @module
 */
import { tlsErrorText, TlsResult } from "../../ffi/libgnutls.ts";
import { tlsAlertText, tlsVerification } from "../../ffi/libgnutls_facts.ts";
import { TlsError } from "../errors.ts";
import type { TlsSide } from "./tls_credentials.ts";

/** Bits of what is wrong with a certificate, and words for them. */
const VERIFICATION: readonly (readonly [bit: number, words: string])[] = [
  [1 << 14, "it is not that of the host"],
  [1 << 10, "it has expired"],
  [1 << 9, "it is not valid yet"],
  [1 << 5, "it was revoked"],
  [1 << 18, "it is not for this purpose"],
  [1 << 6, "its authority is not known here"],
  [1 << 7, "its issuer is no authority"],
  [1 << 8, "its algorithm is not secure"],
  [1 << 11, "its signature is wrong"],
];

/** Whether a result only says that the call is to be repeated. */
export function isRepeated(result: number): boolean {
  return result === TlsResult.AGAIN || result === TlsResult.INTERRUPTED;
}

/**
 * An error about a handshake that ended with `result` on this side.
 *
 * @param unshown Whether the peer has asked for a certificate and got none.
 */
export function handshakeFailure(
  session: number,
  result: number,
  side: TlsSide,
  peer: string,
  unshown = false,
): TlsError {
  const other = side === "client" ? "the receiver" : "the sender";
  return new TlsError(
    "ERR_MULTIFD_TLS_HANDSHAKE",
    `Cannot open TLS connection with ${peer}: ${reasonOf(session, result, other)}` +
      (unshown ? "; it asked for a certificate, and this side has none that it takes" : ""),
    { peer },
  );
}

function reasonOf(session: number, result: number, other: string): string {
  switch (result) {
    case TlsResult.CERTIFICATE_VERIFICATION: {
      const bits = tlsVerification(session);
      const words = VERIFICATION.filter(([bit]) => (bits & bit) !== 0).map(([, text]) => text);
      return `${other}'s certificate is refused here: ${words.join(", ") || tlsErrorText(result)}`;
    }
    case TlsResult.CERTIFICATE_REQUIRED:
      return `${other} shows no certificate, and this side requires one`;
    case TlsResult.FATAL_ALERT:
    case TlsResult.WARNING_ALERT:
      return `${other} refused it: ${tlsAlertText(session)}`;
    case TlsResult.PREMATURE_TERMINATION:
    case TlsResult.PUSH_ERROR:
    case TlsResult.PULL_ERROR:
      return `${other} ended the connection; it may be without TLS, or take other credentials`;
    case UNSUPPORTED_VERSION:
    case UNEXPECTED_PACKET:
    case UNEXPECTED_LENGTH:
    case RECORD_OVERFLOW:
      return `${other} does not speak TLS there, or another version (${tlsErrorText(result)})`;
    case ILLEGAL_PARAMETER:
      return `the key of ${other} is another than here, or its user is not known here`;
    default:
      return tlsErrorText(result);
  }
}

const UNSUPPORTED_VERSION = -8;
const UNEXPECTED_LENGTH = -9;
const UNEXPECTED_PACKET = -15;
const RECORD_OVERFLOW = -26;
const ILLEGAL_PARAMETER = -55;

/** An error about a record that cannot be sent or received. */
export function recordFailure(
  action: "send" | "receive",
  result: number,
  session: number,
): TlsError {
  const reason =
    result === TlsResult.FATAL_ALERT || result === TlsResult.WARNING_ALERT
      ? `the peer ended TLS: ${tlsAlertText(session)}`
      : tlsErrorText(result);
  return new TlsError("ERR_MULTIFD_TLS_RECORD", `Cannot ${action}: ${reason}`);
}
