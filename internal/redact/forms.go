// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"regexp"
)

// form is what secrets of a kind look like, wherever they are. All are in this table, and the tests plant one of each.
type form struct {
	name, pattern string
	// words one of which is in each, in lower case.
	words []string
	// example is one; # stands for letters and digits that are the secret.
	example string
}

// wellKnown are the tokens and keys of well-known services, by their prefixes.
var wellKnown = []form{
	{"JSON Web Token", `\beyJ[\w-]{5,}\.[\w-]+\.?[\w-]*`, []string{"eyj"}, "eyJhbGciOiJSUzI1NiJ9.eyJz#.#"},
	{"AWS", `\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}`, []string{"akia", "asia", "abia", "acca"}, "AKIAABCDEFGHIJKLMNOP"},
	{"GitHub", `\bgh[pousr]_\w{16,}|\bgithub_pat_\w{16,}`, []string{"gh", "github_pat_"}, "ghp_#####"},
	{"GitLab", `\bgl[a-z]{2,6}-[\w.-]{10,}`, []string{"gl"}, "glpat-##-##"},
	{"Slack", `\bxox[a-z]-[\w-]{8,}|\bxapp-[\w-]{8,}`, []string{"xox", "xapp-"}, "xoxb-123-##"},
	{
		"hook", `(?i)(?:hooks\.slack\.com|discord(?:app)?\.com/api|[\w.-]*webhook\.office\.com|` +
			`chat\.googleapis\.com)/[^\s"'\\<>]+`,
		[]string{"hooks.slack.com", "discord", "webhook.office.com", "chat.googleapis.com"},
		"https://hooks.slack.com/services/T#/B#/#",
	},
	{"Stripe", `\b(?:[srp]k_(?:live|test)|whsec)_\w{8,}`, []string{"k_live_", "k_test_", "whsec_"}, "sk_live_##"},
	{"Google", `\bAIza[\w-]{20,}|\bya29\.[\w.-]{10,}|\bGOCSPX-[\w-]{10,}`, []string{"aiza", "ya29.", "gocspx-"}, "AIza###"},
	{"npm, PyPI", `\bnpm_\w{10,}|\bpypi-[\w-]{16,}`, []string{"npm_", "pypi-"}, "npm_###"},
	{"services of models", `\b(?:sk|nvapi)-[\w-]{16,}|\bhf_\w{16,}`, []string{"sk-", "nvapi-", "hf_"}, "sk-proj-###"},
	{"SendGrid", `\bSG\.[\w-]{10,}\.[\w-]{10,}`, []string{"sg."}, "SG.##.##"},
	{"DigitalOcean, Docker", `\bdo[opr]_v1_\w{16,}|\bdckr_\w+_[\w-]{10,}`, []string{"_v1_", "dckr_"}, "dop_v1_###"},
	{"Shopify", `\bshp[a-z]{2}_\w{16,}`, []string{"shp"}, "shpat_###"},
	{"Vault", `\bhv[sbr]\.[\w-]{16,}`, []string{"hvs.", "hvb.", "hvr."}, "hvs.###"},
	{"Telegram", `\b\d{8,10}:AA[\w-]{20,}`, []string{":aa"}, "123456789:AA####"},
	{"age", `(?i)\bAGE-SECRET-KEY-1\w+`, []string{"age-secret-key"}, "AGE-SECRET-KEY-1###"},
	{"PuTTY", `(?i)Private-(?:Lines|MAC):\s*\S+`, []string{"private-"}, "Private-MAC: ##"},
}

func forms() []rule {
	out := make([]rule, 0, len(wellKnown))
	for _, f := range wellKnown {
		out = append(out, replaced(f.pattern, Mark, f.words...))
	}
	return out
}

// longestKey is how far the end of a private key is looked for: whoever writes but its beginning hides no more than
// that.
const longestKey = 64 << 10

// edgeOfKey is of PEM, PGP and SSH2; the ends of lines may be escaped, so lines count for nothing.
var edgeOfKey = regexp.MustCompile(`-{4,5} ?(BEGIN|END) [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}`)

// privateKeys takes out keys, those too whose beginning or end is cut off.
func privateKeys(in []byte) []byte {
	if !bytes.Contains(in, []byte("PRIVATE KEY")) {
		return in
	}
	var out []byte
	done, began := 0, -1 // up to where all is judged; where a key began
	upTo := func(from, to int) {
		from = max(from, done)
		out = append(append(out, in[done:from]...), Mark...)
		done = max(from, to)
	}
	for _, m := range edgeOfKey.FindAllSubmatchIndex(in, -1) {
		begins := in[m[2]] == 'B'
		if began >= 0 && (begins || m[0]-began > longestKey) { // it has no end
			upTo(began, min(m[0], began+longestKey))
			began = -1
		}
		switch {
		case begins:
			began = m[0]
		case began >= 0:
			upTo(began, m[1])
			began = -1
		default:
			upTo(m[0]-longestKey, m[1])
		}
	}
	if began >= 0 {
		upTo(began, min(len(in), began+longestKey))
	}
	return append(out, in[done:]...)
}

var (
	// What errors of Lua quote is of the script: where a name for it lacks, its first line, and what is near the error.
	luaNear  = regexp.MustCompile(`(?s)\bnear (?:'.*?':[ \t]{2,}|'[^\n]*'|"(?:[^"\\\n]|\\.)*"|\\"(?:[^"\\\n])*\\"|'[^\n]*)`)
	luaChunk = regexp.MustCompile(`\[string \\?"[^\n]*?"\]`)
)

func lua(in []byte) []byte {
	if bytes.Contains(in, []byte("near ")) {
		in = replaceFunc(luaNear, in, func(m [][]byte) []byte {
			if bytes.HasSuffix(m[0], []byte("  ")) {
				return []byte("near " + Mark + ":  ")
			}
			return []byte("near " + Mark)
		})
	}
	if bytes.Contains(in, []byte("[string ")) {
		in = luaChunk.ReplaceAll(in, []byte("[string "+Mark+"]"))
	}
	return in
}
