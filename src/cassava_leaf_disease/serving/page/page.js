"use strict";

// What to do, in words, for each answer of the API.
const NEXT = {
  "Cassava Bacterial Blight": "Cut off and burn sick shoots, clean the tools, and plant cuttings of healthy plants only.",
  "Cassava Brown Streak Disease": "Pull the plant out and destroy it. Look at the roots of its neighbours. Take no cuttings from this field.",
  "Cassava Green Mottle": "Watch the plant, keep it free of weeds, and take no cuttings from it.",
  "Cassava Mosaic Disease": "Pull out plants that are sick while they are young. Plant cuttings of healthy plants or of a resistant variety.",
  "Healthy": "Nothing needs to be done. Look at the field again in two weeks.",
};
const INSTEAD = {
  uncertain: ["Not sure", "Add photos of other leaves of the same plant, near, sharp and in daylight."],
  not_cassava: ["This does not look like a cassava leaf", "Take a photo in which one cassava leaf fills the picture."],
  poor_photo: ["The photo is too dark, too bright or blurred", "Take it again in daylight, near, and hold the phone still."],
};

const form = document.getElementById("form");
const answer = document.getElementById("answer");
const button = form.querySelector("button");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  show("Working …", []);
  try {
    await ask(document.getElementById("photos").files);
  } catch {
    fail("The server cannot be reached", "Check the network, and try again.");
  } finally {
    button.disabled = false;
  }
});

async function ask(files) {
  const body = new FormData();
  const one = files.length === 1;
  for (const file of files) body.append(one ? "file" : "files", file);
  const key = document.getElementById("key").value;
  const reply = await fetch(one ? "predict" : "predict/plant", { method: "POST", body, headers: key ? { "X-API-Key": key } : {} });
  const said = await reply.json();
  if (reply.status === 401) document.getElementById("key-row").hidden = false;
  if (!reply.ok) return fail(said.error, `Expected: ${said.expected}`);
  tell(said);
}

function tell(said) {
  const sure = `${Math.round(said.confidence * 100)} of 100`;
  const [title, next] = said.verdict === "diagnosis" ? [said.class_name, NEXT[said.class_name]] : INSTEAD[said.verdict];
  const table = document.createElement("table");
  const caption = document.createElement("caption");
  caption.textContent = `What the leaf looks like (most like ${said.class_name}: ${sure})`;
  table.append(caption);
  for (const [name, probability] of Object.entries(said.probabilities).sort((a, b) => b[1] - a[1])) {
    const row = table.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head);
    row.insertCell().textContent = `${Math.round(probability * 100)} %`;
  }
  show(title, [paragraph(next), ...said.reasons.map(paragraph), table]);
}

function fail(title, next) {
  show(title, [paragraph(next)]);
  answer.className = "failed";
}

function show(title, parts) {
  answer.className = "";
  const heading = document.createElement("h2");
  heading.textContent = title;
  answer.replaceChildren(heading, ...parts);
}

function paragraph(text) {
  const made = document.createElement("p");
  made.textContent = text;
  return made;
}
