/** Starts the page in the language of its reader. */

import { App } from "./app";
import * as history from "./offline/history";
import * as offline from "./offline";
import { registerServiceWorker } from "./offline/register";
import { loadTexts, rememberedLanguage } from "./texts";

const root = document.getElementById("app");
if (root === null) {
  throw new Error("index.html has no #app");
}
new App(root, await loadTexts(rememberedLanguage()), offline, history);
await registerServiceWorker();
