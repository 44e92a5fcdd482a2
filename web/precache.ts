import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

/** What only a device without network needs is fetched when its owner asks for it, not with the page. */
const ON_DEMAND = /\.wasm$|(^|\/)(ort|engine)[-.]/;
const PACKED = /\.br$/; // the server's business

/**
 * Puts into the service worker, in place of `__PRECACHE__`, the page's files with a digest of each:
 * `[["index.html", "1f2e…"], …]`. The worker's bytes so change whenever a file of the page does. In place of
 * `__ON_DEMAND__` come the names of those that are fetched with the model.
 */
export function precache(): Plugin {
  let publicDir = "";
  return {
    name: "precache",
    apply: "build",
    enforce: "post",
    configResolved(config) {
      publicDir = config.publicDir;
    },
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        const files = Object.values(bundle).filter(({ fileName }) => fileName !== "sw.js" && !PACKED.test(fileName));
        const listed = files
          .filter(({ fileName }) => !ON_DEMAND.test(fileName))
          .map((file): [string, string] => [file.fileName, digest(file.type === "chunk" ? file.code : file.source)])
          .concat(publicFiles(publicDir));
        const onDemand = files.map(({ fileName }) => fileName).filter((name) => ON_DEMAND.test(name));
        const worker = bundle["sw.js"];
        if (worker?.type === "chunk") {
          worker.code = worker.code
            .replaceAll("__PRECACHE__", JSON.stringify(listed.sort()))
            .replaceAll("__ON_DEMAND__", JSON.stringify(onDemand.sort()));
        }
      },
    },
  };
}

/** Files that the build copies as they are. */
function publicFiles(folder: string): [string, string][] {
  const names = existsSync(folder) ? readdirSync(folder) : [];
  return names.map((name) => [name, digest(readFileSync(join(folder, name)))]);
}

function digest(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex").slice(0, 16);
}
