/**
 * The keys that GnuTLS has agreed on, for whoever protects a session's records in its place.
 *
 * @module
 */
import { NativeType } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import type { AeadName } from "./libcrypto.ts";
import { LIBGNUTLS } from "./libgnutls.ts";
import { openLibrary } from "./library.ts";

const SESSION = NativeType.ptr; // gnutls_session_t
const ADDRESS = NativeType.ptr;
const INT = NativeType.i32;
const SYMBOLS = {
  gnutls_cipher_get: { args: [SESSION], returns: INT },
  gnutls_record_get_state: {
    args: [SESSION, INT, ADDRESS, ADDRESS, ADDRESS, ADDRESS],
    returns: INT,
  }, // read, datum *mac_key, datum *iv, datum *key, u8 seq[8]
  gnutls_record_set_state: { args: [SESSION, INT, ADDRESS], returns: INT }, // read, u8 seq[8]
  gnutls_session_key_update: { args: [SESSION, INT], returns: INT }, // flags
  gnutls_transport_set_int2: { args: [SESSION, INT, INT], returns: NativeType.void }, // receive, send
} as const;

type Gnutls = ReturnType<typeof open>;
type Address = Parameters<Gnutls["gnutls_cipher_get"]>[0];

const open = () => openLibrary(LIBGNUTLS, SYMBOLS);
let opened: Gnutls | undefined;
const gnutls = (): Gnutls => (opened ??= open());

const DATUM_BYTES = 16; // gnutls_datum_t: 0 pointer, 8 u32 size
const SEQUENCE_BYTES = 8;
const IV_BYTES = 12;
const CIPHERS: ReadonlyMap<number, AeadName> = new Map([
  [10, "AES-128-GCM"],
  [11, "AES-256-GCM"],
  [23, "CHACHA20-POLY1305"],
]);

/** One direction of a session. */
export type TlsDirection = "read" | "write";

/** What protects the records of one direction. The addresses hold until the library changes its keys. */
export interface TlsKeys {
  readonly cipher: AeadName;
  readonly key: number;
  /** Of 12 bytes. */
  readonly iv: number;
  /** Of the next record. */
  readonly sequence: number;
}

/** The keys of a session after its handshake; undefined for a cipher that is none of TLS 1.3. */
export function tlsKeys(session: number, direction: TlsDirection): TlsKeys | undefined {
  const library = gnutls();
  const cipher = CIPHERS.get(library.gnutls_cipher_get(session as Address));
  const out = new Arena(3 * DATUM_BYTES + SEQUENCE_BYTES);
  const [mac, iv, key, sequence] = [0, 1, 2, 3].map((index) => out.address + index * DATUM_BYTES);
  const status = library.gnutls_record_get_state(
    session as Address,
    direction === "read" ? 1 : 0,
    mac as Address,
    iv as Address,
    key as Address,
    sequence as Address,
  );
  if (status < 0 || cipher === undefined || out.u32[(DATUM_BYTES + 8) >>> 2] !== IV_BYTES) return;
  return {
    cipher,
    key: out.pointerAt(2 * DATUM_BYTES),
    iv: out.pointerAt(DATUM_BYTES),
    sequence:
      out.view.getUint32(3 * DATUM_BYTES) * 0x1_0000_0000 + out.view.getUint32(3 * DATUM_BYTES + 4),
  };
}

/** Tells the library how many records others have sent or received with its keys. */
export function tlsSetSequence(session: number, direction: TlsDirection, sequence: number): void {
  const number = new Arena(SEQUENCE_BYTES);
  number.view.setUint32(0, sequence / 0x1_0000_0000);
  number.view.setUint32(4, sequence);
  const read = direction === "read" ? 1 : 0;
  gnutls().gnutls_record_set_state(session as Address, read, number.address as Address);
}

/** Tells the peer that new keys follow in this direction, and makes them. */
export function tlsRenewKeys(session: number): number {
  return gnutls().gnutls_session_key_update(session as Address, 0);
}

/** Lets a session receive from another descriptor than it sends on. */
export function tlsSetDescriptors(session: number, receiveFd: number, sendFd: number): void {
  gnutls().gnutls_transport_set_int2(session as Address, receiveFd, sendFd);
}
