// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
)

// certificates are those of a text in PEM, written anew: what else is between them, or instead of them, is left out.
func certificates(v any, encoded bool) any {
	text, is := v.(string)
	if !is {
		return Mark
	}
	rest := []byte(text)
	if encoded {
		var err error
		if rest, err = base64.StdEncoding.DecodeString(text); err != nil {
			return Mark
		}
	}
	var out strings.Builder
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Builder takes all
		}
	}
	switch {
	case out.Len() == 0:
		return Mark
	case encoded:
		return base64.StdEncoding.EncodeToString([]byte(out.String()))
	}
	return out.String()
}
