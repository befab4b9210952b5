/**
 * Certificates for a test or a small installation, made by the program `openssl`, in folders as QEMU
 * and this library read them.
 *
 * @module
 */
import { spawnSync } from "bun";
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";

/** What a certificate says. */
export interface CertificateWish {
  /** Default: the side. */
  readonly commonName?: string;
  /** Hosts and addresses that it is for. Default: this machine, to itself. */
  readonly names?: readonly string[];
  readonly days?: number;
}

const NAMES_DEFAULT = ["127.0.0.1", "localhost"];
const DAYS_DEFAULT = 2;
const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/** See the module comment. */
export class CertificateAuthority {
  readonly #parent: string;
  readonly #name: string;
  readonly #days: number;

  /** Makes an authority: `NAME-cert.pem` and `NAME-key.pem` in the folder `parent`. */
  constructor(parent: string, name: string, days = DAYS_DEFAULT) {
    this.#parent = parent;
    this.#name = join(parent, name);
    this.#days = days;
    openssl([
      ["req", "-x509", ...NEW_KEY, "-days", String(days), "-subj", `/CN=${name}`],
      ["-keyout", `${this.#name}-key.pem`, "-out", `${this.#name}-cert.pem`],
      ["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
    ]);
  }

  /** Puts this authority into a folder of another one's. */
  trust(dir: string): void {
    copyFileSync(`${this.#name}-cert.pem`, join(dir, "ca-cert.pem"));
  }

  /** Makes a folder of one side and returns its path; without a wish it has the authority only. */
  folder(name: string, side: "server" | "client", wish?: CertificateWish): string {
    const dir = join(this.#parent, name);
    mkdirSync(dir, { mode: 0o700 });
    this.trust(dir);
    if (wish === undefined) return dir;
    const { commonName = side, names = NAMES_DEFAULT, days = this.#days } = wish;
    const [request, extensions] = [`${dir}/request`, `${dir}/extensions`];
    openssl([
      ["req", "-new", ...NEW_KEY, "-subj", `/CN=${commonName}`],
      ["-keyout", `${dir}/${side}-key.pem`, "-out", request],
    ]);
    const alternatives = names.map((host) => `${isIP(host) === 0 ? "DNS" : "IP"}:${host}`);
    const lines = [
      `subjectAltName=${alternatives.join(",")}`,
      `extendedKeyUsage=${side}Auth`,
      "keyUsage=critical,digitalSignature,keyEncipherment",
    ];
    writeFileSync(extensions, lines.join("\n"));
    openssl([
      ["x509", "-req", "-in", request, "-CA", `${this.#name}-cert.pem`],
      ["-CAkey", `${this.#name}-key.pem`, "-CAcreateserial", "-days", String(days)],
      ["-extfile", extensions, "-out", `${dir}/${side}-cert.pem`],
    ]);
    for (const path of [request, extensions]) rmSync(path);
    return dir;
  }
}

function openssl(words: readonly (readonly string[])[]): void {
  const { exitCode, stderr } = spawnSync(["openssl", ...words.flat()], { stderr: "pipe" });
  if (exitCode !== 0) throw new Error(`Cannot make certificates: ${stderr.toString().trim()}`);
}
