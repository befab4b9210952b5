/**
 * What GnuTLS knows of a session: what was agreed on, who the peer is, and what it said at the end.
 * On the thread that uses the session (`libgnutls.ts`).
 *
 * @module
 */
import { NativeType } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { LIBGNUTLS } from "./libgnutls.ts";
import { openLibrary } from "./library.ts";

const SESSION = NativeType.ptr; // gnutls_session_t
const ADDRESS = NativeType.ptr;
const TEXT = NativeType.cstring;
const INT = NativeType.i32;
const SYMBOLS = {
  gnutls_alert_get: { args: [SESSION], returns: INT },
  gnutls_alert_get_name: { args: [INT], returns: TEXT },
  gnutls_session_get_verify_cert_status: { args: [SESSION], returns: INT },
  gnutls_certificate_get_peers: { args: [SESSION, ADDRESS], returns: ADDRESS }, // unsigned *; datum *
  gnutls_x509_crt_init: { args: [ADDRESS], returns: INT }, // crt *
  gnutls_x509_crt_deinit: { args: [ADDRESS], returns: NativeType.void },
  gnutls_x509_crt_import: { args: [ADDRESS, ADDRESS, INT], returns: INT }, // datum *, format
  gnutls_x509_crt_get_dn: { args: [ADDRESS, ADDRESS, ADDRESS], returns: INT }, // buf, size_t *
  gnutls_cipher_get: { args: [SESSION], returns: INT },
  gnutls_certificate_client_get_request_status: { args: [SESSION], returns: INT },
  gnutls_certificate_get_ours: { args: [SESSION], returns: ADDRESS }, // datum *
  gnutls_check_version: { args: [ADDRESS], returns: TEXT }, // oldest version, NULL for any
} as const;

type Gnutls = ReturnType<typeof open>;
type Address = Parameters<Gnutls["gnutls_alert_get"]>[0];

const open = () => openLibrary(LIBGNUTLS, SYMBOLS);
let opened: Gnutls | undefined;
const gnutls = (): Gnutls => (opened ??= open());

const DER = 0;
const NAME_BYTES_MAX = 4096;

/** Version of the library. */
export function gnutlsVersion(): string {
  return String(gnutls().gnutls_check_version(0 as unknown as Address));
}

/** Whether a server has asked this side for a certificate, and whether it has got one. */
export function tlsOwnCertificate(session: number): "not asked for" | "missing" | "shown" {
  const library = gnutls();
  const asked = library.gnutls_certificate_client_get_request_status(session as Address);
  if (asked === 0) return "not asked for";
  const own = library.gnutls_certificate_get_ours(session as Address);
  return own === null || Number(own) === 0 ? "missing" : "shown";
}

/** Number of the cipher of a session whose handshake is complete, as GnuTLS counts them. */
export function tlsCipher(session: number): number {
  return gnutls().gnutls_cipher_get(session as Address);
}

/** What the peer's last alert says. */
export function tlsAlertText(session: number): string {
  const library = gnutls();
  return String(library.gnutls_alert_get_name(library.gnutls_alert_get(session as Address)));
}

/** Bits that say what is wrong with the peer's certificate. */
export function tlsVerification(session: number): number {
  return gnutls().gnutls_session_get_verify_cert_status(session as Address);
}

/** Distinguished name in the peer's certificate; undefined when it has shown none. */
export function tlsPeerName(session: number): string | undefined {
  const library = gnutls();
  const out = new Arena(64 + NAME_BYTES_MAX);
  const peers = library.gnutls_certificate_get_peers(session as Address, out.address as Address);
  if (peers === null || Number(peers) === 0) return undefined;
  if (library.gnutls_x509_crt_init((out.address + 8) as Address) < 0) return undefined;
  const certificate = out.pointerAt(8) as Address;
  try {
    if (library.gnutls_x509_crt_import(certificate, peers, DER) < 0) return undefined;
    out.setPointer(16, NAME_BYTES_MAX);
    const [name, length] = [out.address + 64, out.address + 16];
    const status = library.gnutls_x509_crt_get_dn(certificate, name as Address, length as Address);
    if (status < 0) return undefined;
    return new TextDecoder().decode(out.u8.slice(64, 64 + out.pointerAt(16)));
  } finally {
    library.gnutls_x509_crt_deinit(certificate);
  }
}
