//! Lists the mutants of Rust files, one JSON object a line, for `scripts/mutants`.
//!
//! A mutant replaces the bytes `start..end` of a file, which are one whole expression or statement,
//! so that a `match` on the number of the active mutant can stand in their place. Constants,
//! patterns, attributes, generics, macros, tests and `Debug` are left alone: they have no place for
//! such a `match`, or nothing that a test should hold.
//!
//! usage: mutant-sites FILE...

use std::{env, fs, ops::Range};

use syn::{
    Attribute, BinOp, Expr, ExprBinary, ExprLit, ImplItemFn, Item, ItemFn, ItemImpl, Lit, Meta,
    ReturnType, Signature, Stmt, Token, TraitItemFn, Type, UnOp,
    punctuated::Punctuated,
    spanned::Spanned,
    visit::{self, Visit},
};

fn main() {
    for file in env::args().skip(1) {
        let text = fs::read_to_string(&file).expect("a file that can be read");
        let parsed = syn::parse_file(&text).expect("a file that compiles");
        if is_absent(&parsed.attrs) {
            continue;
        }
        let mut sites = Sites {
            file: &file,
            text: &text,
            function: String::new(),
        };
        sites.visit_file(&parsed);
    }
}

struct Sites<'a> {
    file: &'a str,
    text: &'a str,
    function: String,
}

impl Sites<'_> {
    fn tell(&self, kind: &str, form: &str, at: Range<usize>, new: &str) {
        let line = self.text[..at.start].matches('\n').count() + 1;
        println!(
            "{{\"file\":{},\"line\":{line},\"function\":{},\"kind\":{},\"form\":{},\"start\":{},\"end\":{},\"new\":{}}}",
            json(self.file),
            json(&self.function),
            json(kind),
            json(form),
            at.start,
            at.end,
            json(new),
        );
    }

    /// Another expression in place of one.
    fn expression(&self, kind: &str, of: &impl Spanned, new: &str) {
        self.tell(kind, "expression", of.span().byte_range(), new);
    }

    /// The same expression, with other text in place of a part of it.
    fn part(&self, kind: &str, of: &impl Spanned, part: &impl Spanned, new: &str) {
        let (all, part) = (of.span().byte_range(), part.span().byte_range());
        let text = [
            &self.text[all.start..part.start],
            new,
            &self.text[part.end..all.end],
        ];
        self.tell(kind, "expression", all, &text.concat());
    }

    fn condition(&self, condition: &Expr, values: &[&str]) {
        if !has_let(condition) {
            for value in values {
                self.expression("condition", condition, value);
            }
        }
    }

    fn function(
        &mut self,
        signature: &Signature,
        block: &syn::Block,
        visit: impl FnOnce(&mut Self),
    ) {
        if signature.constness.is_some() || signature.unsafety.is_some() {
            return;
        }
        let outer = std::mem::replace(&mut self.function, signature.ident.to_string());
        let body = block.span().byte_range();
        let inside = body.start + 1..body.start + 1;
        let code = self.text[body.start + 1..body.end - 1].trim();
        for value in values_of(&signature.output) {
            if !code.is_empty() && code != *value {
                self.tell("return", "entry", inside.clone(), value);
            }
        }
        visit(self);
        self.function = outer;
    }

    fn binary(&self, binary: &ExprBinary) {
        let (kind, news): (_, &[&str]) = match binary.op {
            BinOp::Lt(_) => ("comparison", &["<=", ">="]),
            BinOp::Le(_) => ("comparison", &["<", ">"]),
            BinOp::Gt(_) => ("comparison", &[">=", "<="]),
            BinOp::Ge(_) => ("comparison", &[">", "<"]),
            BinOp::Eq(_) => ("comparison", &["!="]),
            BinOp::Ne(_) => ("comparison", &["=="]),
            BinOp::And(_) => ("boolean", &["||"]),
            BinOp::Or(_) => ("boolean", &["&&"]),
            BinOp::Add(_) => ("arithmetic", &["-", "*"]),
            BinOp::Sub(_) => ("arithmetic", &["+"]),
            BinOp::Mul(_) => ("arithmetic", &["+", "/"]),
            BinOp::Div(_) => ("arithmetic", &["*"]),
            BinOp::Rem(_) => ("arithmetic", &["/"]),
            BinOp::BitAnd(_) => ("arithmetic", &["|"]),
            BinOp::BitOr(_) => ("arithmetic", &["&"]),
            BinOp::BitXor(_) => ("arithmetic", &["|"]),
            BinOp::Shl(_) => ("arithmetic", &[">>"]),
            BinOp::Shr(_) => ("arithmetic", &["<<"]),
            BinOp::AddAssign(_) => ("arithmetic", &["-="]),
            BinOp::SubAssign(_) => ("arithmetic", &["+="]),
            BinOp::MulAssign(_) => ("arithmetic", &["/="]),
            BinOp::BitOrAssign(_) => ("arithmetic", &["&="]),
            BinOp::BitAndAssign(_) => ("arithmetic", &["|="]),
            _ => return,
        };
        if !has_let(&binary.left) && !has_let(&binary.right) {
            for new in news {
                self.part(kind, binary, &binary.op, new);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Sites<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            // Constants, types, imports: nothing that runs.
            _ => return,
        };
        if !is_absent(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let of = item
            .trait_
            .as_ref()
            .and_then(|(_, path, _)| path.segments.last());
        if of.is_none_or(|of| of.ident != "Debug") {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.sig, &item.block, |sites| {
            sites.visit_block(&item.block)
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_absent(&item.attrs) {
            self.function(&item.sig, &item.block, |sites| {
                sites.visit_block(&item.block)
            });
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block, |sites| sites.visit_block(block));
        }
    }

    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        if let Stmt::Expr(expr, Some(_)) = stmt {
            let is_absent = match expr {
                Expr::Call(expr) => is_absent(&expr.attrs),
                _ => false,
            };
            if is_absent {
                return;
            }
            if is_effect(expr) {
                self.tell("statement", "statement", stmt.span().byte_range(), "");
            }
        }
        if let Stmt::Local(local) = stmt {
            if is_absent(&local.attrs) {
                return;
            }
        }
        visit::visit_stmt(self, stmt);
    }

    fn visit_expr_binary(&mut self, binary: &'ast ExprBinary) {
        self.binary(binary);
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        if let UnOp::Not(not) = unary.op {
            self.part("boolean", unary, &not, "");
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_if(&mut self, conditional: &'ast syn::ExprIf) {
        self.condition(&conditional.cond, &["true", "false"]);
        visit::visit_expr_if(self, conditional);
    }

    fn visit_expr_while(&mut self, repeated: &'ast syn::ExprWhile) {
        // Forced true, it would only show that a loop without an end is noticed.
        self.condition(&repeated.cond, &["false"]);
        visit::visit_expr_while(self, repeated);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if let Some((_, guard)) = &arm.guard {
            self.condition(guard, &["true", "false"]);
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let name = call.method.to_string();
        if let Some((_, new)) = METHODS.iter().find(|(method, _)| *method == name) {
            self.part("arithmetic", call, &call.method, new);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        // The length is a constant.
        self.visit_expr(&repeat.expr);
    }

    fn visit_expr_lit(&mut self, literal: &'ast ExprLit) {
        if let Lit::Int(number) = &literal.lit {
            let (digits, suffix) = (number.base10_digits(), number.suffix());
            if let Ok(value) = digits.parse::<u64>() {
                let news = [value.checked_add(1), value.checked_sub(1)];
                for new in news.into_iter().flatten() {
                    self.expression("constant", literal, &format!("{new}{suffix}"));
                }
            }
        }
    }
}

/// Returns whether an expression that ends with a semicolon does something that can be left out.
fn is_effect(expr: &Expr) -> bool {
    match expr {
        Expr::Assign(_) | Expr::Call(_) | Expr::MethodCall(_) => true,
        Expr::Binary(binary) => is_assignment(&binary.op),
        Expr::Try(tried) => is_effect(&tried.expr),
        Expr::Await(awaited) => is_effect(&awaited.base),
        _ => false,
    }
}

fn is_assignment(op: &BinOp) -> bool {
    matches!(
        op,
        BinOp::AddAssign(_)
            | BinOp::SubAssign(_)
            | BinOp::MulAssign(_)
            | BinOp::DivAssign(_)
            | BinOp::BitAndAssign(_)
            | BinOp::BitOrAssign(_)
            | BinOp::ShlAssign(_)
            | BinOp::ShrAssign(_)
    )
}

fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

/// Values that a function of this type may return instead. The compiler drops what does not fit.
fn values_of(output: &ReturnType) -> &'static [&'static str] {
    let ReturnType::Type(_, output) = output else {
        return &["()"];
    };
    let Type::Path(path) = &**output else {
        return &[];
    };
    let Some(last) = path.path.segments.last() else {
        return &[];
    };
    match last.ident.to_string().as_str() {
        "bool" => &["true", "false"],
        "Option" => &["None"],
        "Result" => &["Ok(Default::default())"],
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i32" | "i64" => &["0", "1"],
        "f64" => &["0.0", "1.0"],
        "Self" => &[],
        _ => &["Default::default()"],
    }
}

/// Returns whether a plain build of the library lacks an item.
fn is_absent(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .filter_map(|attribute| attribute.parse_args::<Meta>().ok())
        .any(|condition| !holds(&condition))
}

fn holds(condition: &Meta) -> bool {
    let Meta::List(list) = condition else {
        let absent = ["test", "doctest", "keep_loom"];
        return !absent.iter().any(|name| condition.path().is_ident(name));
    };
    let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    let mut parts = parts.expect("conditions").into_iter();
    match list.path.get_ident().map(ToString::to_string).as_deref() {
        Some("all") => parts.all(|part| holds(&part)),
        Some("any") => parts.any(|part| holds(&part)),
        Some("not") => !parts.any(|part| holds(&part)),
        _ => true,
    }
}

fn json(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            _ => out.push(letter),
        }
    }
    out + "\""
}

const METHODS: [(&str, &str); 12] = [
    ("saturating_add", "saturating_sub"),
    ("saturating_sub", "saturating_add"),
    ("saturating_mul", "saturating_add"),
    ("wrapping_add", "wrapping_sub"),
    ("wrapping_sub", "wrapping_add"),
    ("checked_add", "checked_sub"),
    ("checked_sub", "checked_add"),
    ("checked_mul", "checked_add"),
    ("fetch_add", "fetch_sub"),
    ("fetch_sub", "fetch_add"),
    ("min", "max"),
    ("max", "min"),
];
