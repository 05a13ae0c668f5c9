package auth

import (
	"context"
	"testing"
)

func BenchmarkParseAddress(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseAddress("Alice.Example@mail.example.org"); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkResolve(b *testing.B, local, domain string) {
	d := busy(b)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		d.Resolve(ctx, local, domain)
	}
}

func BenchmarkResolveUser(b *testing.B)    { benchmarkResolve(b, "alice", "example.org") }
func BenchmarkResolveDetail(b *testing.B)  { benchmarkResolve(b, "alice+x", "example.org") }
func BenchmarkResolveAlias(b *testing.B)   { benchmarkResolve(b, "team", "example.org") }
func BenchmarkResolveUnknown(b *testing.B) { benchmarkResolve(b, "nobody", "example.org") }

// BenchmarkLogin is a login with a proof.
func BenchmarkLogin(b *testing.B) {
	d := busy(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Authenticate(context.Background(), as("alice@example.org", "secret of alice@example.org")); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHash is a login without one, at the default costs.
func BenchmarkHash(b *testing.B) {
	p, err := HashParams{}.complete()
	must(b, err)
	h := newHasher(p)
	for b.Loop() {
		if _, _, err := h.matches(context.Background(), h.blank(), "password"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAlive(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a, err := busy(b).Authenticate(ctx, as("alice@example.org", "secret of alice@example.org"))
	must(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if !a.Alive(ctx) {
			b.Fatal("not alive")
		}
	}
}
