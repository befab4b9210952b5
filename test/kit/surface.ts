/**
 * The public surface as text: each exported name with its declaration as the compiler emits it, without
 * comments and private members, so that a review sees every change of it.
 */
import { readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { bun, repositoryRoot } from "../setup/command.ts";
import { runCommand } from "./subprocess.ts";
import { TemporaryFolder } from "./temporary_folder.ts";

/** Where the surface is kept. */
export const SURFACE_FILE = "docs/surface.txt";
const MODULE = "mod.ts";

/** What the library exports, and what its declarations mention and it does not export. */
export interface Surface {
  /** A paragraph for each name, in the order of the names. */
  readonly text: string;
  readonly names: readonly string[];
  /** `NAME mentions OTHER` for each type that a user meets and cannot name. */
  readonly unnamed: readonly string[];
}

interface Declared {
  readonly name: string;
  readonly text: string;
}

/** Has the compiler emit the declarations and reads them. */
export async function readSurface(): Promise<Surface> {
  using folder = new TemporaryFolder();
  const tsc = join(repositoryRoot, "node_modules", "typescript", "bin", "tsc");
  const project = ["--project", "tsconfig.types.json", "--outDir", folder.path];
  const { status, stdout } = await runCommand([bun, tsc, ...project], { cwd: repositoryRoot });
  if (status !== 0) throw new Error(`Cannot emit declarations: ${stdout}`);
  return surfaceOf(folder.path);
}

function surfaceOf(folder: string): Surface {
  const exported = exportsOf(folder, MODULE).toSorted(([left], [right]) => (left < right ? -1 : 1));
  const names = new Set(exported.map(([name]) => name));
  const paragraphs: string[] = [];
  const unnamed = new Set<string>();
  for (const [name, file] of exported) {
    const code = codeOf(folder, file);
    const declared = declarationsOf(code);
    const known = new Set([...importsOf(code), ...declared.map((other) => other.name)]);
    for (const { text } of declared.filter((candidate) => candidate.name === name)) {
      paragraphs.push(text);
      // Names of members are followed by a colon or a bracket, those of types never are.
      for (const [, word = ""] of text.matchAll(/(?<![\w.$"])(\w+)\b(?!\??\s*[:(])/g)) {
        if (known.has(word) && !names.has(word)) unnamed.add(`${name} mentions ${word}`);
      }
    }
  }
  return { text: `${paragraphs.join("\n\n")}\n`, names: [...names], unnamed: [...unnamed] };
}

/** Names that a module of re-exports has, each with the file it is declared in. */
function exportsOf(folder: string, module: string): [name: string, file: string][] {
  const statements = /^export (?:type )?\{([^}]*)\} from "([^"]+)"/gm;
  return [...codeOf(folder, module).matchAll(statements)].flatMap(([, list = "", from = ""]) =>
    namesIn(list).map((name): [string, string] => [name, posix.join(dirname(module), from)]),
  );
}

function importsOf(code: string): string[] {
  return [...code.matchAll(/^import (?:type )?\{([^}]*)\} from/gm)].flatMap(([, list = ""]) =>
    namesIn(list),
  );
}

function namesIn(list: string): string[] {
  return [...list.matchAll(/(?:^|,)\s*(?:type )?(\w+)/g)].map(([, name = ""]) => name);
}

/** A declaration file without its comments. */
function codeOf(folder: string, file: string): string {
  const text = readFileSync(join(folder, file.replace(/\.ts$/, ".d.ts")), "utf8");
  return text.replaceAll(/^ *\/\*\*[^]*?\*\/\n|^ *(?:#private;|\/\/.*)\n/gm, "");
}

/** The declarations at the top of a file, each up to the bracket or semicolon that ends it. */
function declarationsOf(code: string): Declared[] {
  const start =
    /^(?:export )?(?:declare )?((?:abstract )?(?:class|interface|type|function|const) (\w+))/gm;
  return [...code.matchAll(start)].map((match) => {
    const from = match.index + match[0].length - (match[1]?.length ?? 0);
    const isBody = /^(?:abstract )?(?:class|interface)/.test(match[1] ?? "");
    return { name: match[2] ?? "", text: code.slice(from, endOf(code, from, isBody)) };
  });
}

function endOf(code: string, from: number, isBody: boolean): number {
  let depth = 0;
  for (let at = from; at < code.length; at++) {
    const character = code[at] ?? "";
    if ("({[".includes(character)) depth++;
    if (")}]".includes(character) && --depth === 0 && isBody && character === "}") return at + 1;
    if (character === ";" && depth === 0) return at + 1;
  }
  throw new Error(`Cannot find the end of ${code.slice(from, from + 40)}`);
}
