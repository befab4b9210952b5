/**
 * GnuTLS: TLS over a connected descriptor, on the calling thread and without callbacks. It is what
 * QEMU uses.
 *
 * A session is an address and may go from one thread to another, but two threads must not use one at
 * the same time. Results are counts, or negative as {@linkcode TlsResult} names them.
 *
 * @module
 */
import { NativeType } from "./runtime/runtime.ts";
import { Arena } from "./arena.ts";
import { openLibrary, type LibrarySource } from "./library.ts";

/** Where GnuTLS is looked for. */
export const LIBGNUTLS: LibrarySource = {
  name: "libgnutls",
  sonames: ["libgnutls.so.30"],
  override: "MULTIFD_LIBGNUTLS",
  debianPackage: "libgnutls30",
};

const SESSION = NativeType.ptr; // gnutls_session_t
const CREDENTIALS = NativeType.ptr; // gnutls_certificate_credentials_t and those of PSK
const ADDRESS = NativeType.ptr;
const TEXT = NativeType.cstring;
const INT = NativeType.i32;
const SIZE = NativeType.u64_fast;
const SSIZE = NativeType.i64_fast;
const SYMBOLS = {
  gnutls_init: { args: [ADDRESS, INT], returns: INT }, // session *, flags
  gnutls_deinit: { args: [SESSION], returns: NativeType.void },
  gnutls_priority_set_direct: { args: [SESSION, ADDRESS, ADDRESS], returns: INT }, // priorities, err_pos **
  gnutls_credentials_set: { args: [SESSION, INT, CREDENTIALS], returns: INT }, // type, credentials
  gnutls_transport_set_int2: { args: [SESSION, INT, INT], returns: NativeType.void }, // receive, send
  gnutls_handshake: { args: [SESSION], returns: INT },
  gnutls_record_send: { args: [SESSION, ADDRESS, SIZE], returns: SSIZE },
  gnutls_record_recv: { args: [SESSION, ADDRESS, SIZE], returns: SSIZE },
  gnutls_record_check_pending: { args: [SESSION], returns: SIZE },
  gnutls_bye: { args: [SESSION, INT], returns: INT }, // how
  gnutls_alert_send: { args: [SESSION, INT, INT], returns: INT }, // level, description
  gnutls_alert_send_appropriate: { args: [SESSION, INT], returns: INT }, // err
  gnutls_strerror: { args: [INT], returns: TEXT },
  gnutls_session_set_verify_cert2: { args: [SESSION, ADDRESS, INT, INT], returns: NativeType.void }, // typed_vdata *, elements, flags
  gnutls_certificate_server_set_request: { args: [SESSION, INT], returns: NativeType.void }, // request
  gnutls_certificate_allocate_credentials: { args: [ADDRESS], returns: INT }, // credentials *
  gnutls_certificate_free_credentials: { args: [CREDENTIALS], returns: NativeType.void },
  gnutls_certificate_set_x509_trust_file: { args: [CREDENTIALS, ADDRESS, INT], returns: INT }, // file, format; certificates
  gnutls_certificate_set_x509_crl_file: { args: [CREDENTIALS, ADDRESS, INT], returns: INT }, // file, format; lists
  gnutls_certificate_set_x509_key_file: {
    args: [CREDENTIALS, ADDRESS, ADDRESS, INT],
    returns: INT,
  }, // certificate, key, format
  gnutls_psk_allocate_client_credentials: { args: [ADDRESS], returns: INT }, // credentials *
  gnutls_psk_free_client_credentials: { args: [CREDENTIALS], returns: NativeType.void },
  gnutls_psk_set_client_credentials: { args: [CREDENTIALS, ADDRESS, ADDRESS, INT], returns: INT }, // user, datum *, key format
  gnutls_psk_allocate_server_credentials: { args: [ADDRESS], returns: INT }, // credentials *
  gnutls_psk_free_server_credentials: { args: [CREDENTIALS], returns: NativeType.void },
  gnutls_psk_set_server_credentials_file: { args: [CREDENTIALS, ADDRESS], returns: INT }, // file
} as const;

type Gnutls = ReturnType<typeof open>;
type Address = Parameters<Gnutls["gnutls_deinit"]>[0];

const open = () => openLibrary(LIBGNUTLS, SYMBOLS);
let opened: Gnutls | undefined;
const gnutls = (): Gnutls => (opened ??= open());

/** Results that callers decide on. */
export const TlsResult = {
  /** A time-out of the descriptor, or a message that is not for the caller: to be repeated. */
  AGAIN: -28,
  INTERRUPTED: -52,
  FATAL_ALERT: -12,
  WARNING_ALERT: -16,
  PUSH_ERROR: -53,
  PULL_ERROR: -54,
  /** The connection ended without the peer's word for it. */
  PREMATURE_TERMINATION: -110,
  CERTIFICATE_REQUIRED: -112,
  CERTIFICATE_VERIFICATION: -348,
} as const;

const [SERVER, CLIENT] = [1, 2];
const NO_SIGNAL = 64;
const NO_TICKETS = 1024;
const [CERTIFICATE, PSK] = [1, 4];
const PEM = 1;
const [ALERT_FATAL, ACCESS_DENIED] = [2, 49];
const KEY_HEX = 1;
const CERT_REQUIRE = 2;
const SHUT_WR = 1;
const [VDATA_HOSTNAME, VDATA_PURPOSE] = [1, 2];

/*
 * gnutls_datum_t:      0 pointer, 8 u32 size; 16 bytes
 * gnutls_typed_vdata_st: 0 i32 type, 8 pointer, 16 u32 size; 24 bytes
 */
const [DATUM_BYTES, VDATA_BYTES] = [16, 24];

/** What this side takes of the peer's certificate. */
interface PeerCheck {
  /** Name that it must have; undefined for any. */
  readonly hostname: string | undefined;
  /** Extended key usage that it must have, as an object identifier. */
  readonly purpose: string;
}

/** Files of a side that has certificates; see {@linkcode TlsCredentials.x509}. */
interface CertificateFiles {
  /** Authorities that the peer's certificate must come from; undefined to take any. */
  readonly authorities: string | undefined;
  /** List of revoked certificates, if there is one. */
  readonly revoked: string | undefined;
  /** Its own, with the key. */
  readonly own: { readonly certificate: string; readonly key: string } | undefined;
}

/** Says which file GnuTLS could not use. */
export class TlsFileError extends Error {}

/** Keys or certificates of one side, for any number of its sessions, all of which must end before. */
export class TlsCredentials implements Disposable {
  readonly address: number;
  /** As `gnutls_credentials_set()` wants it. */
  readonly type: number;
  readonly #free: (address: number) => void;
  #freed = false;

  private constructor(address: number, type: number, free: (address: number) => void) {
    this.address = address;
    this.type = type;
    this.#free = free;
  }

  /**
   * Certificates of either side.
   *
   * @throws {TlsFileError} for a file that is none of these.
   */
  static x509(files: CertificateFiles): TlsCredentials {
    const library = gnutls();
    const address = allocate(
      (out) => library.gnutls_certificate_allocate_credentials(out),
      "certificates",
    );
    const made = new TlsCredentials(address, CERTIFICATE, (one) =>
      library.gnutls_certificate_free_credentials(one as Address),
    );
    const { authorities, revoked, own } = files;
    try {
      const load = (file: string, call: (path: Address) => number): void => {
        using path = new NativeText(file);
        const result = call(path.address as Address);
        if (result < 0) throw new TlsFileError(`${file}: ${tlsErrorText(result)}`);
      };
      if (authorities !== undefined) {
        load(authorities, (path) =>
          library.gnutls_certificate_set_x509_trust_file(address as Address, path, PEM),
        );
      }
      if (revoked !== undefined) {
        load(revoked, (path) =>
          library.gnutls_certificate_set_x509_crl_file(address as Address, path, PEM),
        );
      }
      if (own !== undefined) {
        using key = new NativeText(own.key);
        load(own.certificate, (path) =>
          library.gnutls_certificate_set_x509_key_file(
            address as Address,
            path,
            key.address as Address,
            PEM,
          ),
        );
      }
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  /** A shared key of the side that connects; `hexKey` is wiped. */
  static pskClient(username: string, hexKey: Uint8Array): TlsCredentials {
    const library = gnutls();
    const address = allocate((out) => library.gnutls_psk_allocate_client_credentials(out), "key");
    using user = new NativeText(username);
    const key = new Arena(DATUM_BYTES + hexKey.byteLength);
    key.setPointer(0, key.address + DATUM_BYTES);
    key.setPointer(8, hexKey.byteLength);
    key.u8.set(hexKey, DATUM_BYTES);
    hexKey.fill(0);
    const result = library.gnutls_psk_set_client_credentials(
      address as Address,
      user.address as Address,
      key.address as Address,
      KEY_HEX,
    );
    key.u8.fill(0);
    const made = new TlsCredentials(address, PSK, (one) =>
      library.gnutls_psk_free_client_credentials(one as Address),
    );
    if (result >= 0) return made;
    made[Symbol.dispose]();
    throw new TlsFileError(tlsErrorText(result));
  }

  /** Shared keys of the side that listens: a file of lines `user:hexkey`. */
  static pskServer(file: string): TlsCredentials {
    const library = gnutls();
    const address = allocate((out) => library.gnutls_psk_allocate_server_credentials(out), "keys");
    using path = new NativeText(file);
    const result = library.gnutls_psk_set_server_credentials_file(
      address as Address,
      path.address as Address,
    );
    const made = new TlsCredentials(address, PSK, (one) =>
      library.gnutls_psk_free_server_credentials(one as Address),
    );
    if (result >= 0) return made;
    made[Symbol.dispose]();
    throw new TlsFileError(`${file}: ${tlsErrorText(result)}`);
  }

  [Symbol.dispose](): void {
    if (!this.#freed) this.#free(this.address);
    this.#freed = true;
  }
}

/** How sessions of one side are made. Must outlive them. */
export class TlsSettings {
  readonly #credentials: TlsCredentials;
  readonly #priorities: NativeText;
  readonly #flags: number;
  readonly #vdata: Arena | undefined;
  readonly #texts: readonly NativeText[];
  readonly #requiresCertificate: boolean;

  /**
   * @param priorities As GnuTLS writes them.
   * @param check Undefined: the peer shows no certificate, or any will do.
   */
  constructor(
    side: "client" | "server",
    credentials: TlsCredentials,
    priorities: string,
    check: PeerCheck | undefined,
  ) {
    this.#credentials = credentials;
    this.#priorities = new NativeText(priorities);
    this.#flags = (side === "server" ? SERVER : CLIENT) | NO_SIGNAL | NO_TICKETS;
    this.#requiresCertificate = side === "server" && check !== undefined;
    if (check === undefined) {
      this.#texts = [];
      return;
    }
    const { hostname, purpose } = check;
    const entries = [
      ...(hostname === undefined ? [] : [{ type: VDATA_HOSTNAME, text: hostname }]),
      { type: VDATA_PURPOSE, text: purpose },
    ];
    const vdata = new Arena(entries.length * VDATA_BYTES);
    this.#texts = entries.map(({ text }) => new NativeText(text));
    entries.forEach(({ type }, index) => {
      vdata.view.setInt32(index * VDATA_BYTES, type, true);
      vdata.setPointer(index * VDATA_BYTES + 8, this.#texts[index].address);
    });
    this.#vdata = vdata;
  }

  /** Makes a session on a connected descriptor; for `tlsFree()` in the end. */
  makeSession(fd: number): number {
    const library = gnutls();
    const out = new Arena(8);
    const status = library.gnutls_init(out.address as Address, this.#flags);
    if (status < 0) throw new Error(`Cannot make TLS session: ${tlsErrorText(status)}`);
    const session = out.pointerAt(0);
    const handle = session as Address;
    const priorities = this.#priorities.address as Address;
    const set = library.gnutls_priority_set_direct(handle, priorities, 0 as unknown as Address);
    if (set < 0) {
      tlsFree(session);
      throw new Error(`Cannot set TLS priorities: ${tlsErrorText(set)}`);
    }
    const { type, address } = this.#credentials;
    library.gnutls_credentials_set(handle, type, address as Address);
    if (this.#requiresCertificate)
      library.gnutls_certificate_server_set_request(handle, CERT_REQUIRE);
    if (this.#vdata !== undefined) {
      const vdata = this.#vdata.address as Address;
      library.gnutls_session_set_verify_cert2(handle, vdata, this.#texts.length, 0);
    }
    library.gnutls_transport_set_int2(handle, fd, fd);
    return session;
  }
}

/** Goes on with a handshake; 0 when it is complete. */
export function tlsHandshake(session: number): number {
  return gnutls().gnutls_handshake(session as Address);
}

/**
 * Sends `bytes` bytes at `address` as one record, at most 16 KiB; the count. After AGAIN the record is
 * kept: then call it with 0 and 0, and the count is that of the first call.
 */
export function tlsSend(session: number, address: number, bytes: number): number {
  return Number(gnutls().gnutls_record_send(session as Address, address as Address, bytes));
}

/** Receives up to `bytes` bytes of one record; 0 when the peer has said that nothing follows. */
export function tlsReceive(session: number, address: number, bytes: number): number {
  return Number(gnutls().gnutls_record_recv(session as Address, address as Address, bytes));
}

/** Bytes that are decrypted and not yet received. */
export function tlsPending(session: number): number {
  return Number(gnutls().gnutls_record_check_pending(session as Address));
}

/** Says that nothing follows. */
export function tlsBye(session: number): number {
  return gnutls().gnutls_bye(session as Address, SHUT_WR);
}

/** Tells the peer why a handshake failed here with `result`. */
export function tlsAlert(session: number, result: number): void {
  gnutls().gnutls_alert_send_appropriate(session as Address, result);
}

/** Tells the peer that it may not do this, whoever it is. */
export function tlsDeny(session: number): void {
  gnutls().gnutls_alert_send(session as Address, ALERT_FATAL, ACCESS_DENIED);
}

/** Releases a session that no thread uses. */
export function tlsFree(session: number): void {
  gnutls().gnutls_deinit(session as Address);
}

/** GnuTLS's words for a result. */
export function tlsErrorText(result: number): string {
  return String(gnutls().gnutls_strerror(result));
}

/** A text with its NUL, wiped when it is done with. */
class NativeText implements Disposable {
  readonly address: number;
  readonly #arena: Arena;

  constructor(text: string) {
    const bytes = new TextEncoder().encode(text);
    this.#arena = new Arena(bytes.byteLength + 1);
    this.#arena.u8.set(bytes);
    this.address = this.#arena.address;
  }

  [Symbol.dispose](): void {
    this.#arena.u8.fill(0);
  }
}

function allocate(call: (out: Address) => number, what: string): number {
  const out = new Arena(8);
  const status = call(out.address as Address);
  if (status < 0) throw new Error(`Cannot allocate ${what}: ${tlsErrorText(status)}`);
  return out.pointerAt(0);
}
