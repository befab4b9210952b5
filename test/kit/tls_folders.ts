import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Makes a folder with a file of shared keys as QEMU reads it; its path. */
export function pskFolder(
  parent: string,
  name: string,
  users: readonly string[] = ["qemu"],
): string {
  const dir = join(parent, name);
  mkdirSync(dir);
  const lines = users.map((user) => `${user}:${randomBytes(32).toString("hex")}\n`);
  writeFileSync(join(dir, "keys.psk"), lines.join(""), { mode: 0o600 });
  return dir;
}

/** What a test wants of a certificate. */
export interface CertificateWish {
  readonly commonName?: string;
  /** Alternative names as openssl writes them. */
  readonly names?: string;
  readonly days?: number;
}

/** An authority made by openssl, and folders of certificates as QEMU reads them. */
export class TestAuthority {
  readonly #parent: string;
  readonly #name: string;

  constructor(parent: string, name: string) {
    this.#parent = parent;
    this.#name = join(parent, name);
    openssl([
      ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
      ["-keyout", `${this.#name}-key.pem`, "-out", `${this.#name}-cert.pem`, "-days", "2"],
      ["-subj", `/CN=${name}`, "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
    ]);
  }

  /** Makes a folder of one side; without a wish it has the authority only. */
  folder(name: string, side: "server" | "client", wish?: CertificateWish): string {
    const dir = join(this.#parent, name);
    mkdirSync(dir);
    writeFileSync(
      join(dir, "ca-cert.pem"),
      Bun.spawnSync(["cat", `${this.#name}-cert.pem`]).stdout,
    );
    if (wish === undefined) return dir;
    const { commonName = side, names = "IP:127.0.0.1,DNS:localhost", days = 2 } = wish;
    const [key, request, extensions] = [`${dir}/${side}-key.pem`, `${dir}/request`, `${dir}/ext`];
    openssl([
      ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
      ["-keyout", key, "-out", request, "-subj", `/CN=${commonName}`],
    ]);
    const usage = `extendedKeyUsage=${side}Auth\nkeyUsage=critical,digitalSignature,keyEncipherment\n`;
    writeFileSync(extensions, `subjectAltName=${names}\n${usage}`);
    openssl([
      ["x509", "-req", "-in", request, "-CA", `${this.#name}-cert.pem`],
      ["-CAkey", `${this.#name}-key.pem`, "-CAcreateserial", "-days", `${days}`],
      ["-extfile", extensions, "-out", `${dir}/${side}-cert.pem`],
    ]);
    return dir;
  }
}

function openssl(words: readonly (readonly string[])[]): void {
  const { exitCode, stderr } = Bun.spawnSync(["openssl", ...words.flat()], { stderr: "pipe" });
  if (exitCode !== 0) throw new Error(`openssl ${words.flat().join(" ")}: ${stderr.toString()}`);
}
