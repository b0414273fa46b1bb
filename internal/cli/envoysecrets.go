// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

// envoySecrets is as much of envoy.admin.v3.SecretsConfigDump as is shown. Private keys are not read: Envoy has
// redacted them already.
type envoySecrets struct {
	Active  []envoySecretState `json:"dynamic_active_secrets"`
	Warming []envoySecretState `json:"dynamic_warming_secrets"`
}

type envoySecretState struct {
	Name    string    `json:"name"`
	Updated time.Time `json:"last_updated"`
	Secret  struct {
		Certificate *struct {
			Chain envoyData `json:"certificate_chain"`
		} `json:"tls_certificate"`
		Validation *struct {
			Trusted envoyData `json:"trusted_ca"`
		} `json:"validation_context"`
	} `json:"secret"`
}

// envoyData is envoy.config.core.v3.DataSource; bytes are base64 in JSON, as in Go.
type envoyData struct {
	Bytes  []byte `json:"inline_bytes"`
	String string `json:"inline_string"`
}

func (d envoyData) certificates() []*x509.Certificate {
	rest := d.Bytes
	if len(rest) == 0 {
		rest = []byte(d.String)
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return out
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			out = append(out, c)
		}
	}
}

func drawSecrets(t *table, section json.RawMessage, f filter, now time.Time) error {
	var dump envoySecrets
	if err := json.Unmarshal(section, &dump); err != nil {
		return fmt.Errorf("its secrets can't be read: %w", err)
	}
	var rows [][]string
	for _, s := range dump.Active {
		if f.secret(s.Name) {
			rows = append(rows, s.rows(now)...)
		}
	}
	for _, s := range dump.Warming {
		if f.secret(s.Name) {
			rows = append(rows, []string{s.Name, "-", "waits for it", "-", "-", "-", ago(s.Updated, now)})
		}
	}
	sortRows(rows)
	t.rows([]string{"SECRET", "KIND", "STATE", "NAMES", "SERIAL", "EXPIRES IN", "UPDATED"}, rows)
	return nil
}

func (s envoySecretState) rows(now time.Time) [][]string {
	kind := "root"
	var certificates []*x509.Certificate
	switch {
	case s.Secret.Certificate != nil:
		kind = "certificate"
		certificates = s.Secret.Certificate.Chain.certificates()
		if len(certificates) > 1 {
			certificates = certificates[:1] // the rest of the chain leads to the root
		}
	case s.Secret.Validation != nil:
		certificates = s.Secret.Validation.Trusted.certificates()
	}
	if len(certificates) == 0 {
		return [][]string{{s.Name, kind, "no certificate", "-", "-", "-", ago(s.Updated, now)}}
	}
	var out [][]string
	for _, c := range certificates {
		state := "valid"
		switch {
		case now.After(c.NotAfter):
			state = "expired"
		case now.Before(c.NotBefore):
			state = "not valid yet"
		}
		out = append(out, []string{
			s.Name, kind, state, dash(certificateNames(c)), fmt.Sprintf("%x", c.SerialNumber),
			ago(now, c.NotAfter), ago(s.Updated, now),
		})
	}
	return out
}

func certificateNames(c *x509.Certificate) string {
	out := make([]string, 0, len(c.URIs)+len(c.DNSNames))
	for _, u := range c.URIs {
		out = append(out, u.String())
	}
	out = append(out, c.DNSNames...)
	if len(out) == 0 {
		return c.Subject.String()
	}
	return strings.Join(out, ",")
}
