//! Components out of small core modules in text form.

use wit_component::StringEncoding;
use wit_parser::Resolve;

use super::{ComponentError, componentize};

fn core_module(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// What a compiler leaves behind: a core module, and the contract in a custom section.
fn with_contract(text: &str, contract: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("contract.wit", contract).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let mut module = core_module(text);
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

const CONTRACT: &str = "package a:b; world guest { export tick: func(elapsed-ms: u32); }";

#[test]
fn a_module_with_a_contract_becomes_a_component_and_always_the_same_one() {
    let module = with_contract(r#"(module (func (export "tick") (param i32)))"#, CONTRACT);
    let component = componentize(&module).unwrap();
    let mut exports = Vec::new();
    for payload in wasmparser::Parser::new(0).parse_all(&component) {
        if let wasmparser::Payload::ComponentExportSection(section) = payload.unwrap() {
            exports.extend(section.into_iter().map(|export| export.unwrap().name.name.to_owned()));
        }
    }
    assert_eq!(exports, ["tick"]);
    assert_eq!(componentize(&module).unwrap(), component);
    assert!(matches!(
        componentize(&component),
        Err(ComponentError::AlreadyComponent)
    ));
}

#[test]
fn what_is_no_match_module_is_refused_with_the_reason() {
    let check = |bytes: &[u8], expected: &str| {
        let error = componentize(bytes).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(b"", "not WebAssembly");
    check(b"#!/bin/sh", "not WebAssembly");
    check(&core_module("(module)"), "rookery_sdk::export!");
    check(
        &core_module(r#"(module (func (export "tick") (param i32)))"#),
        "`describe`",
    );
    check(
        &core_module(r#"(module (func (export "describe") (result i32) i32.const 0))"#),
        "start",
    );
    check(&with_contract("(module)", CONTRACT), "tick");
    let foreign = r#"(module (import "env" "fopen" (func)) (func (export "tick") (param i32)))"#;
    check(&with_contract(foreign, CONTRACT), "env");
    let cut = with_contract(r#"(module (func (export "tick") (param i32)))"#, CONTRACT);
    check(&cut[..cut.len() - 1], "cannot become a component");
}
