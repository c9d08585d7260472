// Texts of a file: one a line, or the text column of a table.

const NAMES = ["text", "texts", "sentence", "utterance", "message", "content", "body", "comment", "query"];

/** Rows of cells; quotes may enclose delimiters, line ends and doubled quotes. */
export function cells(content, delimiter) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  const endCell = () => { row.push(cell); cell = ""; };
  const endRow = () => { endCell(); if (row.some((each) => each.trim())) rows.push(row); row = []; };
  for (let i = 0; i < content.length; i += 1) {
    const letter = content[i];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (content[i + 1] === '"') { cell += '"'; i += 1; } else quoted = false;
    } else if (letter === '"' && cell === "") quoted = true;
    else if (letter === delimiter) endCell();
    else if (letter === "\n") endRow();
    else if (letter !== "\r") cell += letter;
  }
  endRow();
  return rows;
}

function delimiterOf(content) {
  const line = content.slice(0, content.indexOf("\n") + 1 || content.length);
  const times = (mark) => line.split(mark).length;
  return [",", ";", "\t"].reduce((best, mark) => (times(mark) > times(best) ? mark : best));
}

/** The texts in a file by the name `file`; the text column is the one with such a name, else the longest one. */
export function textsOf(content, file) {
  if (!/\.(csv|tsv)$/i.test(file)) return lines(content);
  const rows = cells(content.replace(/^\uFEFF/, ""), delimiterOf(content));
  if (!rows.length) return [];
  const head = rows[0].map((name) => name.trim().toLowerCase());
  const named = head.findIndex((name) => NAMES.includes(name));
  const length = (column) => rows.reduce((sum, row) => sum + (row[column] ?? "").length, 0);
  const column = named >= 0 ? named : head.reduce((best, _, i) => (length(i) > length(best) ? i : best), 0);
  const body = named >= 0 || head.includes("label") ? rows.slice(1) : rows;
  return distinct(body.map((row) => row[column] ?? ""));
}

export const lines = (content) => distinct(content.split(/\r?\n/));

const distinct = (texts) => [...new Set(texts.map((text) => text.trim()).filter(Boolean))];
